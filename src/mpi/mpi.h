// SPDX-License-Identifier: Apache-2.0
// Ranks over MPI, for the program alone. A process that no launcher started never calls MPI; loading its library takes 4 of the program's
// 65 ms (EPYC Zen 4, `soma version`).
#ifndef SOMA_MPI_MPI_H
#define SOMA_MPI_MPI_H

#include "base/ranks.h"

// NULL when this process was started alone. Refused: a launcher's process in a build without MPI, since each would do the whole job. Call
// it once, before the first thread. When the connection to a rank breaks, MPI ends all of them with a message.
soma_status soma__mpi_open(soma_ranks **ranks, soma_error *err);
void soma__mpi_close(soma_ranks *ranks); // NULL allowed; every rank calls it

#endif
