#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

/// One text to answer from.
struct Document {
  std::string id;               ///< shown in legends and JSON; the file's name, or its number ("1", "2", ...)
  std::string title;            ///< may be empty; stands before the text where it is not
  std::string text;             ///< UTF-8, not empty
  std::optional<double> score;  ///< log relevance, for Pooling::max and Pooling::mixture
};

/// What is asked of the documents.
struct Question {
  std::string text;    ///< UTF-8; where the prompt ends with it, any bytes
  std::string prefix;  ///< what the answer begins with, any bytes; may be empty
};

inline constexpr std::size_t kMaxDocumentBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxJsonBytes = std::size_t{256} << 20;

/// Checks that `text` is UTF-8 and has a character that is no white space. `name` stands in the error.
/// Throws: tuiqiao::Error "NAME: ..." with the position of the first byte, counted from 0, that begins no character.
void check_text(std::string_view text, const std::string& name);
/// The same of bytes that need not be UTF-8, as at the end of a prompt that is healed.
void check_bytes(std::string_view text, const std::string& name);

/// A file's whole text; a byte order mark at its start is dropped.
/// Throws: tuiqiao::Error when it is no regular file or cannot be read, is empty, is not UTF-8, is larger than
/// kMaxDocumentBytes, or has control characters in its name.
Document read_document(const std::filesystem::path& file);
/// Every regular file of a folder and the folders below it, in the order of their paths; names that begin with a dot
/// and links to folders are passed over. The id is the path below the folder. Throws: as read_document, and when there
/// is none.
std::vector<Document> read_document_folder(const std::filesystem::path& folder);
/// A JSON array of strings, or of objects with `text` and optional `id` (a string or an integer), `title` and `score`.
/// Throws: tuiqiao::Error that names the file and the element, counted from 1 ("docs.json: element 3: ..."), also for
/// keys that are unknown or stand twice, for an empty array and above kMaxJsonBytes.
std::vector<Document> read_documents_json(const std::filesystem::path& file);
/// A JSON array of strings, or of objects with `question` and optional `prefix`. Throws: as read_documents_json.
std::vector<Question> read_questions_json(const std::filesystem::path& file);

/// Cuts a document into parts of at most `max_tokens` tokens: at ends of paragraphs (blank lines), of lines or
/// sentences where a paragraph is too long, else between words or characters. Each part repeats up to `overlap_tokens`
/// of whole sentences from the end of the part before. Parts keep id, title and score. A document that fits comes back
/// as it is; else white space at the cuts and the ends goes, but not the indentation of a line. Throws:
/// std::invalid_argument unless 0 <= overlap_tokens < max_tokens; tuiqiao::Error when a single character has more
/// tokens than that.
/// Cost: tokenises the text some four times, in pieces a few times as long as a part.
std::vector<Document> split_document(const Document& document, const Vocabulary& vocabulary, int max_tokens,
                                     int overlap_tokens = 0);

}  // namespace tuiqiao
