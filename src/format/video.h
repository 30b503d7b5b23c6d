// SPDX-License-Identifier: Apache-2.0
// Video files through libav: the exact frame at a time, as RGB; and writing H.264. Local files only; a file that ends early, holds
// another size or damaged frames is refused with its name and the time.
#ifndef SOMA_FORMAT_VIDEO_H
#define SOMA_FORMAT_VIDEO_H

#include "base/base.h"

typedef struct soma_video soma_video; // one thread's decoder

soma_status soma__video_open(soma_video **video, const char *path, soma_error *err);
void soma__video_close(soma_video *video); // NULL allowed
int soma__video_width(const soma_video *video);
int soma__video_height(const soma_video *video);
// The frame whose time is within `tolerance` of `seconds` into rgb: u8 [height, width, 3], rows from the top. Reading forward does not
// seek; else the file is entered at the key frame before and decoded up to the frame.
soma_status soma__video_read(soma_video *video, double seconds, double tolerance, uint8_t *rgb, soma_error *err);
// How often the decoder had to seek since open (a test holds sequential reading to zero).
int64_t soma__video_seeks(const soma_video *video);

typedef struct soma_video_spec {
    int width, height; // even
    double fps;
    int gop;            // frames from key frame to key frame: 2 for training data (cheap random access), 30 for watching
    int crf;            // x264's quality: 0 lossless, 18 to 23 usual
    const char *preset; // x264's: "ultrafast" .. "veryslow"
} soma_video_spec;

typedef struct soma_video_writer soma_video_writer;
// Writes beside `path` until commit gives the file its name. The spec is borrowed for the call.
soma_status soma__video_writer_open(soma_video_writer **writer, const char *path, const soma_video_spec *spec, soma_error *err);
soma_status soma__video_writer_frame(soma_video_writer *writer, const uint8_t *rgb, soma_error *err); // u8 [height, width, 3]
soma_status soma__video_writer_commit(soma_video_writer *writer, soma_error *err);
void soma__video_writer_close(soma_video_writer *writer); // NULL allowed; without commit nothing is left behind

#endif
