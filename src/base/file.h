// SPDX-License-Identifier: Apache-2.0
// Files: mapped for reading, written whole or not at all.
#ifndef SOMA_BASE_FILE_H
#define SOMA_BASE_FILE_H

#include "base/base.h"

#include <stdio.h>

#define SOMA_PATH_MAX 4096

// A read-only map of a whole file. An empty file has data NULL and size 0.
typedef struct soma_file_map {
    const unsigned char *data;
    size_t size;
    int64_t changed; // when the file was last written, in nanoseconds of the system's clock
} soma_file_map;
soma_status soma__file_map(soma_file_map *map, const char *path, soma_error *err);
void soma__file_unmap(soma_file_map *map);
// Lets go of the memory behind bytes [from, from + size), whole pages; they are read again when they are looked at again.
void soma__file_map_forget(const soma_file_map *map, size_t from, size_t size);

// The whole file as bytes with a zero behind them (not counted); release with soma__free. Refuses files above `max_size`.
soma_status soma__file_read(char **data, size_t *size, const char *path, size_t max_size, soma_error *err);
// Writes to a temporary file beside `path`, flushes it to the disk and renames: readers see the old file or the new one.
soma_status soma__file_write(const char *path, const void *data, size_t size, soma_error *err);

// The same for output that is produced piece by piece. `commit` renames; `close` without it removes the temporary file.
typedef struct soma_file_writer {
    FILE *file;
    char path[SOMA_PATH_MAX], temporary[SOMA_PATH_MAX + 32];
} soma_file_writer;
soma_status soma__file_writer_open(soma_file_writer *w, const char *path, soma_error *err);
soma_status soma__file_writer_put(soma_file_writer *w, const void *data, size_t size, soma_error *err);
soma_status soma__file_writer_commit(soma_file_writer *w, soma_error *err);
void soma__file_writer_close(soma_file_writer *w); // after commit: nothing left to do; NULL and {0} allowed

// Gives a file that another library has written its name: flushed to the disk, then renamed, so that readers see the old file or the new
// one.
soma_status soma__file_publish(const char *temporary, const char *path, soma_error *err);

bool soma__file_exists(const char *path);
bool soma__dir_exists(const char *path);
soma_status soma__dir_make(const char *path, soma_error *err);   // with its parents; fine when it is there
soma_status soma__dir_remove(const char *path, soma_error *err); // with its contents; fine when it is absent; follows no link
// Names in a folder, sorted, without "." and ".."; release with soma__dir_list_free.
soma_status soma__dir_list(char ***names, size_t *n_names, const char *path, soma_error *err);
void soma__dir_list_free(char **names, size_t n_names);
// "dir/name" into out; an error when it does not fit.
soma_status soma__path_join(char out[SOMA_PATH_MAX], const char *dir, const char *name, soma_error *err);

// Test hook: after `n` more reads (-1: never) the next one fails, once, with an input/output error.
void soma__file_fail_after(int64_t n);

#endif
