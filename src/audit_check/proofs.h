#pragma once

#include <string>

#include "audit_check/checked_rows.h"
#include "tuiqiao/audit.h"

namespace tuiqiao::checking {

/// What is wrong with the proof that a class cannot be alone on top ("face"), or on top at all unless all classes tie
/// ("simplex", "ball", "inside", "below"); "" where it holds. See docs/audit.md for what each claims.
std::string check_proof(const CheckedRows& rows, const ClassVerdict& verdict);

/// Fractions as written by GMP. Throws: tuiqiao::Error on other text.
std::vector<mpq_class> fractions_of(const std::vector<std::string>& texts);

}  // namespace tuiqiao::checking
