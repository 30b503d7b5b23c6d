// SPDX-License-Identifier: Apache-2.0
// See mpi.h. That a launcher started us stands in the environment, which is how launchers tell it: Open MPI's mpirun, anything that speaks
// PMIx (Slurm's srun), MPICH's mpirun. MPI's own answer would cost an MPI_Init in every run of the program.
#include "mpi/mpi.h"

#include <stdlib.h>

#if SOMA_MPI
#include <limits.h>
#include <mpi.h>
#endif

static bool was_launched(void) {
    static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < SOMA_COUNT(ranks); i++)
        if (getenv(ranks[i])) return true;
    return false;
}

#if SOMA_MPI

static void reduce(int64_t *values, size_t n, MPI_Op op) {
    for (size_t some; n; n -= some, values += some) {
        some = SOMA_MIN(n, (size_t)INT_MAX);
        MPI_Allreduce(MPI_IN_PLACE, values, (int)some, MPI_INT64_T, op, MPI_COMM_WORLD);
    }
}

static void mpi_sum(soma_ranks *ranks, int64_t *values, size_t n) { reduce(values, n, MPI_SUM); }
static void mpi_max(soma_ranks *ranks, int64_t *values, size_t n) { reduce(values, n, MPI_MAX); }

static void mpi_share(soma_ranks *ranks, void *data, size_t size, int owner) {
    SOMA_CHECK(size <= INT_MAX, "one message is less than 2 GB");
    MPI_Bcast(data, (int)size, MPI_BYTE, owner, MPI_COMM_WORLD);
}

soma_status soma__mpi_open(soma_ranks **out, soma_error *err) {
    static soma_ranks world = {.sum = mpi_sum, .max = mpi_max, .share = mpi_share};
    int level;
    *out = NULL;
    if (!was_launched()) return SOMA_OK;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) || level < MPI_THREAD_FUNNELED)
        return soma__fail(err, SOMA_UNSUPPORTED, "MPI did not start with threads beside it (it offers level %d)", level);
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.count);
    *out = &world;
    return SOMA_OK;
}

void soma__mpi_close(soma_ranks *ranks) {
    if (ranks) MPI_Finalize();
}

#else

soma_status soma__mpi_open(soma_ranks **out, soma_error *err) {
    *out = NULL;
    if (!was_launched()) return SOMA_OK;
    return soma__fail(err, SOMA_UNSUPPORTED,
                      "this soma was built without MPI, and a launcher started it: each process would do the whole job; "
                      "run it alone, or build it where MPI is (scripts/deps.sh mpi)");
}

void soma__mpi_close(soma_ranks *ranks) {}

#endif
