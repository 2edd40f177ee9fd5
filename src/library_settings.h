#pragma once

namespace tuiqiao {

/// Starts the program again with what its libraries read from the environment before main, where that is not set yet:
/// - OPENBLAS_CORETYPE, where OpenBLAS took the kernels of an old processor since it does not know this one (0.3.21 on
///   processors of 2023 and later: products are five times slower so);
/// - GOMP_SPINCOUNT: threads of OpenMP that wait for one another sleep after some microseconds, not milliseconds. Alone
///   they are as fast; beside other work they leave the processor to the thread that is waited for.
/// Only at the beginning of main, before any thread. Does nothing where nothing is to be set.
void settle_libraries(char** argv);

}  // namespace tuiqiao
