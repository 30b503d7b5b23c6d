// SPDX-License-Identifier: Apache-2.0
// SQL over a dataset of any format. Two tables are there:
//   episodes (episode, frames, task, present)                     one row per episode, numbered as in the dataset
//   frames   (episode, frame, and every vector feature by name)   one row per frame that is there; a list, or a number where there is one
#ifndef SOMA_DATA_QUERY_H
#define SOMA_DATA_QUERY_H

#include "data/dataset.h"
#include "format/parquet.h"

// The rows of one SELECT; with `as_text` each value as text. Features that the question does not name are not read (all are where it has
// a `*`). Release with soma__table_free.
soma_status soma__dataset_query(soma_table **rows, const soma_dataset *dataset, const char *question, bool as_text, soma_error *err);

#endif
