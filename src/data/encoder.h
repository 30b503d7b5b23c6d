// SPDX-License-Identifier: Apache-2.0
// One camera's pictures into one video file, on a thread of its own: whoever films is not held up by the codec. Pictures wait in a queue
// of fixed size.
#ifndef SOMA_DATA_ENCODER_H
#define SOMA_DATA_ENCODER_H

#include "format/video.h"

typedef struct soma_encoder soma_encoder; // one producer

// `room`: pictures that may wait.
soma_status soma__encoder_open(soma_encoder **encoder, const char *path, const soma_video_spec *spec, int room, soma_error *err);
// A picture can be put without waiting.
bool soma__encoder_has_room(soma_encoder *encoder);
// Copies rgb u8 [height, width, 3]; waits for room. Tells what went wrong with an earlier picture.
soma_status soma__encoder_put(soma_encoder *encoder, const uint8_t *rgb, soma_error *err);
// Waits until all pictures are encoded, and adds to histogram [3, 256] the values of those that came since the last call.
soma_status soma__encoder_drain(soma_encoder *encoder, uint64_t *histogram, soma_error *err);
soma_status soma__encoder_commit(soma_encoder *encoder, soma_error *err); // the file gets its name; call drain before
void soma__encoder_close(soma_encoder *encoder);                          // NULL allowed; without commit nothing is left behind

#endif
