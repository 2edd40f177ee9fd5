#pragma once

#include <llama.h>

#include <memory>
#include <optional>
#include <string>

#include "tuiqiao/text/llama.h"

namespace tuiqiao {

/// What a LlamaModel shares with the decoders over it.
struct LlamaModel::State {
  struct Free {
    void operator()(llama_model* loaded) const { llama_model_free(loaded); }
  };
  std::unique_ptr<llama_model, Free> model;
  std::optional<Vocabulary> vocabulary;
  std::string fingerprint;
  bool vocabulary_only = false;
  std::string devices;  ///< what evaluates it: results differ between devices
};

/// The latest error that llama.cpp logged, as one line; forgotten by the call.
std::string take_llama_error();

}  // namespace tuiqiao
