#pragma once

namespace tuiqiao {

/// Starts the program again where OpenBLAS took the kernels of an old processor since it does not know this one (0.3.21
/// on processors of 2023 and later: products are five times slower so), with OPENBLAS_CORETYPE set to what this one can
/// do. Only at the beginning of main, before any thread. Does nothing where that is set, or nothing is to be gained.
void choose_blas_kernels(char** argv);

}  // namespace tuiqiao
