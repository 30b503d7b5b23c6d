// SPDX-License-Identifier: Apache-2.0
// libav, held to what a dataset needs. Decoding is exact: a seek lands on the key frame before the wanted time and frames are decoded up
// to it, so the picture does not depend on what was read before. One thread per decoder and encoder: parallelism is the caller's, and
// x264's output then depends on the pictures alone.
#include "format/video.h"
#include "base/file.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

// Frames that are decoded in the time that a seek takes.
enum { SEEK_COST = 2 };

// ---- what both directions share

static void log_line(void *from, int level, const char *format, va_list args) {
    if (level > AV_LOG_WARNING) return;
    char text[600];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = 0;
    soma__log(SOMA_LOG_DEBUG, "libav: %s", text);
}

static void start_libav(void) { av_log_set_callback(log_line); }

static void libav_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_libav);
}

static soma_status fail_av(soma_error *err, const char *path, const char *verb, int code) {
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(code, text, sizeof text);
    soma_status status = code == AVERROR(ENOMEM) ? SOMA_NO_MEMORY : code == AVERROR(ENOENT) ? SOMA_NOT_FOUND : SOMA_BAD_INPUT;
    return soma__fail(err, status, "%s: cannot %s: %s", path, verb, text);
}

// ---- reading

struct soma_video {
    char *path;
    AVFormatContext *format;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame; // the newest decoded one
    struct SwsContext *scale;
    uint8_t *wide; // a picture whose rows are whole blocks; NULL: the pictures' own are
    int stream, width, height;
    double time;   // of `frame`; NAN: there is none
    double wanted; // frames before this time are only decoded for the sake of others
    bool ended;    // the decoder has been drained
    int64_t seeks;
};

static soma_status open_input(soma_video *v, soma_error *err) {
    char url[SOMA_PATH_MAX + 8];
    snprintf(url, sizeof url, "file:%s", v->path); // never a protocol
    AVDictionary *options = NULL;
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi", 0);
    int code = avformat_open_input(&v->format, url, NULL, &options);
    av_dict_free(&options);
    if (code < 0) return fail_av(err, v->path, "open the video", code);
    v->stream = av_find_best_stream(v->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    // an mp4's header says all; other containers need a look at the frames
    if (v->stream < 0 || v->format->streams[v->stream]->codecpar->width <= 0) {
        code = avformat_find_stream_info(v->format, NULL);
        if (code < 0) return fail_av(err, v->path, "read the video's streams", code);
        v->stream = av_find_best_stream(v->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    }
    if (v->stream < 0) return soma__fail(err, SOMA_BAD_INPUT, "%s: holds no video", v->path);
    for (unsigned i = 0; i < v->format->nb_streams; i++)
        if ((int)i != v->stream) v->format->streams[i]->discard = AVDISCARD_ALL;
    return SOMA_OK;
}

static soma_status open_decoder(soma_video *v, soma_error *err) {
    const AVCodecParameters *par = v->format->streams[v->stream]->codecpar;
    if (par->width <= 0 || par->height <= 0 || par->width > 16384 || par->height > 16384)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: pictures of %d x %d", v->path, par->width, par->height);
    const AVCodec *codec = avcodec_find_decoder(par->codec_id);
    if (!codec) return soma__fail(err, SOMA_UNSUPPORTED, "%s: no decoder for %s", v->path, avcodec_get_name(par->codec_id));
    v->codec = avcodec_alloc_context3(codec);
    v->packet = av_packet_alloc();
    v->frame = av_frame_alloc();
    if (!v->codec || !v->packet || !v->frame) return soma__no_memory(err, v->path);
    int code = avcodec_parameters_to_context(v->codec, par);
    v->codec->thread_count = 1;
    v->codec->pkt_timebase = v->format->streams[v->stream]->time_base;
    if (code >= 0) code = avcodec_open2(v->codec, codec, NULL);
    if (code < 0) return fail_av(err, v->path, "start the decoder", code);
    v->width = par->width;
    v->height = par->height;
    return SOMA_OK;
}

soma_status soma__video_open(soma_video **out, const char *path, soma_error *err) {
    libav_once();
    soma_video *v = *out = soma__calloc(1, sizeof *v);
    if (!v) return soma__no_memory(err, path);
    v->time = NAN;
    v->path = soma__strdup(path);
    soma_status status = v->path ? open_input(v, err) : soma__no_memory(err, path);
    if (status == SOMA_OK) status = open_decoder(v, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__video_close(v);
    *out = NULL;
    return status;
}

void soma__video_close(soma_video *v) {
    if (!v) return;
    sws_freeContext(v->scale);
    soma__free(v->wide);
    av_frame_free(&v->frame);
    av_packet_free(&v->packet);
    avcodec_free_context(&v->codec);
    avformat_close_input(&v->format);
    soma__free(v->path);
    soma__free(v);
}

int soma__video_width(const soma_video *v) { return v->width; }
int soma__video_height(const soma_video *v) { return v->height; }
int64_t soma__video_seeks(const soma_video *v) { return v->seeks; }

static int64_t ticks(const soma_video *v, double seconds) {
    return (int64_t)floor(seconds / av_q2d(v->format->streams[v->stream]->time_base) + 0.5);
}

// Gives the decoder its next packet, or the end. What nobody wants and no other frame is made from is not decoded.
static soma_status feed(soma_video *v, soma_error *err) {
    int code;
    do {
        av_packet_unref(v->packet);
        code = av_read_frame(v->format, v->packet);
    } while (code >= 0 && v->packet->stream_index != v->stream);
    if (code < 0 && code != AVERROR_EOF) return fail_av(err, v->path, "read the video", code);
    const bool passed = code >= 0 && v->packet->pts != AV_NOPTS_VALUE && v->packet->pts < ticks(v, v->wanted);
    v->codec->skip_frame = passed ? AVDISCARD_NONREF : AVDISCARD_DEFAULT;
    code = avcodec_send_packet(v->codec, code < 0 ? NULL : v->packet);
    av_packet_unref(v->packet);
    if (code < 0 && code != AVERROR_EOF && code != AVERROR(EAGAIN)) return fail_av(err, v->path, "decode the video", code);
    return SOMA_OK;
}

// Decodes the next frame; at the end `ended` is set and v->frame is empty.
static soma_status next_frame(soma_video *v, soma_error *err) {
    for (;;) {
        int code = avcodec_receive_frame(v->codec, v->frame);
        if (code == AVERROR(EAGAIN)) {
            SOMA_TRY(feed(v, err));
            continue;
        }
        if (code == AVERROR_EOF) {
            v->ended = true;
            v->time = NAN;
            return SOMA_OK;
        }
        if (code < 0) return fail_av(err, v->path, "decode the video", code);
        int64_t pts = v->frame->best_effort_timestamp;
        if (pts == AV_NOPTS_VALUE) return soma__fail(err, SOMA_BAD_INPUT, "%s: a frame has no time", v->path);
        v->time = (double)pts * av_q2d(v->format->streams[v->stream]->time_base);
        return SOMA_OK;
    }
}

static soma_status seek(soma_video *v, double seconds, soma_error *err) {
    const AVStream *stream = v->format->streams[v->stream];
    int code = av_seek_frame(v->format, v->stream, ticks(v, seconds), AVSEEK_FLAG_BACKWARD);
    if (code < 0)
        code = av_seek_frame(v->format, v->stream, stream->start_time == AV_NOPTS_VALUE ? 0 : stream->start_time, AVSEEK_FLAG_BACKWARD);
    if (code < 0) return fail_av(err, v->path, "seek in the video", code);
    avcodec_flush_buffers(v->codec);
    v->time = NAN;
    v->ended = false;
    v->seeks++;
    return SOMA_OK;
}

// Decodes until v->frame is the first one at or behind `seconds` - `tolerance`, or the video has ended; *last is the time of the one
// before.
static soma_status decode_to(soma_video *v, double seconds, double tolerance, double *last, soma_error *err) {
    *last = NAN;
    v->wanted = seconds - tolerance;
    while (!v->ended && !(v->time >= seconds - tolerance)) {
        if (!isnan(v->time)) *last = v->time;
        SOMA_TRY(next_frame(v, err));
    }
    return SOMA_OK;
}

static soma_status to_rgb(soma_video *v, uint8_t *rgb, soma_error *err) {
    const AVFrame *f = v->frame;
    if (f->width != v->width || f->height != v->height)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the picture at %.4f s is %d x %d, the video %d x %d", v->path, v->time, f->width,
                          f->height, v->width, v->height);
    if (f->flags & AV_FRAME_FLAG_CORRUPT) return soma__fail(err, SOMA_BAD_INPUT, "%s: the picture at %.4f s is damaged", v->path, v->time);
    // without more flags, as PyAV and torchcodec convert: the same bytes that policies were trained on elsewhere, and several times as fast
    v->scale = sws_getCachedContext(v->scale, f->width, f->height, f->format, f->width, f->height, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL,
                                    NULL, NULL);
    if (!v->scale) return soma__fail(err, SOMA_UNSUPPORTED, "%s: a pixel format that cannot become RGB", v->path);
    const int *matrix = sws_getCoefficients(f->colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_DEFAULT : (int)f->colorspace);
    sws_setColorspaceDetails(v->scale, matrix, f->color_range == AVCOL_RANGE_JPEG, matrix, 1, 0, 1 << 16, 1 << 16);
    // libswscale writes whole blocks of 16 pixels, of the last row too: a width that is none would be written over its end
    const int block = 16, width = (v->width + block - 1) / block * block;
    if (width != v->width && !v->wide && !(v->wide = soma__alloc((size_t)width * (size_t)v->height * 3)))
        return soma__no_memory(err, v->path);
    uint8_t *planes[4] = {v->wide ? v->wide : rgb};
    int strides[4] = {3 * width};
    sws_scale(v->scale, (const uint8_t *const *)f->data, f->linesize, 0, f->height, planes, strides);
    const size_t row = 3 * (size_t)v->width;
    for (int y = 0; v->wide && y < v->height; y++) memcpy(rgb + (size_t)y * row, v->wide + (size_t)y * 3 * (size_t)width, row);
    return SOMA_OK;
}

// A key frame lies so far ahead of the newest decoded frame that entering there is shorter than decoding on to the wanted frame. A file
// without an index is decoded on for a second of its time.
static bool is_shorter(soma_video *v, double seconds) {
    AVStream *stream = v->format->streams[v->stream];
    const int key = av_index_search_timestamp(stream, ticks(v, seconds), AVSEEK_FLAG_BACKWARD);
    if (key < 0) return seconds > (isnan(v->time) ? 0 : v->time) + 1;
    if (isnan(v->time)) return key > 0;
    return key > av_index_search_timestamp(stream, ticks(v, v->time), AVSEEK_FLAG_BACKWARD | AVSEEK_FLAG_ANY) + SEEK_COST;
}

soma_status soma__video_read(soma_video *v, double seconds, double tolerance, uint8_t *rgb, soma_error *err) {
    double last;
    bool started = !isnan(v->time);
    if (v->ended || (started && seconds < v->time - tolerance) || is_shorter(v, seconds)) SOMA_TRY(seek(v, seconds, err));
    SOMA_TRY(decode_to(v, seconds, tolerance, &last, err));
    if (!v->ended && v->time > seconds + tolerance && isnan(last) && v->seeks) { // an index that points behind the wanted frame
        SOMA_TRY(seek(v, -1e9, err));
        SOMA_TRY(decode_to(v, seconds, tolerance, &last, err));
    }
    if (v->ended) {
        char end[64] = "it holds no frame before it";
        if (!isnan(last)) snprintf(end, sizeof end, "its last frame is at %.4f s", last);
        return soma__fail(err, SOMA_BAD_INPUT, "%s: ends before the frame at %.4f s: %s", v->path, seconds, end);
    }
    if (fabs(v->time - seconds) > tolerance)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: no frame at %.4f s: the next one is at %.4f s", v->path, seconds, v->time);
    return to_rgb(v, rgb, err);
}

// ---- writing

struct soma_video_writer {
    char path[SOMA_PATH_MAX], temporary[SOMA_PATH_MAX + 32];
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scale;
    uint8_t *rgb; // a picture with room behind its end, since libswscale reads whole blocks of 16 bytes
    int64_t n_frames;
    bool created; // the temporary file exists
};

// Checked here, since x264 prints its refusal.
static bool is_preset(const char *word) {
    static const char *const known[] = {"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"};
    for (size_t i = 0; i < SOMA_COUNT(known); i++)
        if (!strcmp(word, known[i])) return true;
    return false;
}

static soma_status open_encoder(soma_video_writer *w, const soma_video_spec *spec, soma_error *err) {
    const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
    if (!codec) return soma__fail(err, SOMA_UNSUPPORTED, "%s: this libavcodec has no H.264 encoder (libx264)", w->path);
    w->codec = avcodec_alloc_context3(codec);
    w->packet = av_packet_alloc();
    w->frame = av_frame_alloc();
    w->rgb = soma__calloc((size_t)spec->width * (size_t)spec->height * 3 + 64, 1);
    if (!w->codec || !w->packet || !w->frame || !w->rgb) return soma__no_memory(err, w->path);
    AVCodecContext *c = w->codec;
    c->width = spec->width;
    c->height = spec->height;
    c->framerate = av_d2q(spec->fps, 100000);
    c->time_base = av_inv_q(c->framerate);
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->colorspace = AVCOL_SPC_SMPTE170M; // what players assume for small pictures, said aloud
    c->color_range = AVCOL_RANGE_MPEG;
    c->gop_size = spec->gop;
    c->max_b_frames = 0; // frames are written in the order of their times, from 0
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    AVDictionary *options = NULL;
    av_dict_set(&options, "preset", spec->preset, 0);
    av_dict_set_int(&options, "crf", spec->crf, 0);
    int code = avcodec_open2(c, codec, &options);
    av_dict_free(&options);
    if (code < 0) return fail_av(err, w->path, "start the encoder", code);
    w->frame->format = c->pix_fmt;
    w->frame->width = c->width;
    w->frame->height = c->height;
    if ((code = av_frame_get_buffer(w->frame, 0)) < 0) return fail_av(err, w->path, "make a frame", code);
    w->scale = sws_getContext(c->width, c->height, AV_PIX_FMT_RGB24, c->width, c->height, c->pix_fmt, SWS_BILINEAR | SWS_ACCURATE_RND, NULL,
                              NULL, NULL);
    return w->scale ? SOMA_OK : soma__no_memory(err, w->path);
}

static soma_status open_output(soma_video_writer *w, soma_error *err) {
    char url[sizeof w->temporary + 8];
    snprintf(url, sizeof url, "file:%s", w->temporary);
    int code = avformat_alloc_output_context2(&w->format, NULL, "mp4", url);
    if (code < 0) return fail_av(err, w->path, "write mp4", code);
    w->stream = avformat_new_stream(w->format, NULL);
    if (!w->stream) return soma__no_memory(err, w->path);
    w->stream->time_base = w->codec->time_base;
    w->stream->avg_frame_rate = w->codec->framerate;
    code = avcodec_parameters_from_context(w->stream->codecpar, w->codec);
    if (code >= 0) code = avio_open(&w->format->pb, url, AVIO_FLAG_WRITE);
    if (code >= 0) {
        w->created = true;
        code = avformat_write_header(w->format, NULL);
    }
    return code < 0 ? fail_av(err, w->path, "create the video", code) : SOMA_OK;
}

soma_status soma__video_writer_open(soma_video_writer **out, const char *path, const soma_video_spec *spec, soma_error *err) {
    libav_once();
    *out = NULL;
    if (spec->width <= 0 || spec->height <= 0 || spec->width % 2 || spec->height % 2 || !(spec->fps > 0) || spec->gop < 1)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: a video needs an even size, a rate and a gop above zero, not %d x %d at %g Hz, gop %d",
                          path, spec->width, spec->height, spec->fps, spec->gop);
    if (!is_preset(spec->preset)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.40s\" is no preset of x264", path, spec->preset);
    if (strlen(path) >= SOMA_PATH_MAX) return soma__fail(err, SOMA_BAD_INPUT, "%.60s...: the path is too long", path);
    soma_video_writer *w = *out = soma__calloc(1, sizeof *w);
    if (!w) return soma__no_memory(err, path);
    strcpy(w->path, path);
    snprintf(w->temporary, sizeof w->temporary, "%s.part-%ld", path, (long)getpid());
    soma_status status = open_encoder(w, spec, err);
    if (status == SOMA_OK) status = open_output(w, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__video_writer_close(w);
    *out = NULL;
    return status;
}

// `frame` NULL: the end.
static soma_status encode(soma_video_writer *w, const AVFrame *frame, soma_error *err) {
    int code = avcodec_send_frame(w->codec, frame);
    while (code >= 0 && (code = avcodec_receive_packet(w->codec, w->packet)) >= 0) {
        w->packet->duration = 1;
        av_packet_rescale_ts(w->packet, w->codec->time_base, w->stream->time_base);
        w->packet->stream_index = w->stream->index;
        code = av_interleaved_write_frame(w->format, w->packet);
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? SOMA_OK : fail_av(err, w->path, "write the video", code);
}

soma_status soma__video_writer_frame(soma_video_writer *w, const uint8_t *rgb, soma_error *err) {
    int code = av_frame_make_writable(w->frame);
    if (code < 0) return fail_av(err, w->path, "make a frame", code);
    memcpy(w->rgb, rgb, (size_t)w->codec->width * (size_t)w->codec->height * 3);
    const uint8_t *planes[4] = {w->rgb};
    int strides[4] = {3 * w->codec->width};
    sws_scale(w->scale, planes, strides, 0, w->codec->height, w->frame->data, w->frame->linesize);
    w->frame->pts = w->n_frames++;
    return encode(w, w->frame, err);
}

soma_status soma__video_writer_commit(soma_video_writer *w, soma_error *err) {
    SOMA_TRY(encode(w, NULL, err));
    int code = av_write_trailer(w->format);
    if (code >= 0) code = avio_closep(&w->format->pb);
    if (code < 0) return fail_av(err, w->path, "finish the video", code);
    w->created = false;
    return soma__file_publish(w->temporary, w->path, err);
}

void soma__video_writer_close(soma_video_writer *w) {
    if (!w) return;
    if (w->format && w->format->pb) avio_closep(&w->format->pb);
    if (w->created) unlink(w->temporary);
    soma__free(w->rgb);
    sws_freeContext(w->scale);
    av_frame_free(&w->frame);
    av_packet_free(&w->packet);
    avcodec_free_context(&w->codec);
    avformat_free_context(w->format);
    soma__free(w);
}
