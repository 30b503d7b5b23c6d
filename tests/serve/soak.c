// SPDX-License-Identifier: Apache-2.0
// A server among bad clients, for as long as one likes: one process serves a real policy, some misbehave at random and are killed at
// random, and this one asks 50 times a second and holds every answer against 20 ms. Not a test of the suite, because it takes long.
//
//     build/soma init --preset nano --out nano
//     build/soak nano 1800 [bad clients, 4] [seed, 1]
//
// Prints what the policy takes alone, every minute the answers so far and the server's memory, and at the end what was not answered in
// time. Exit code 1: an answer failed, the server did not end as it should (under the address sanitizer: a report), or the memory grew
// (but under that sanitizer, which keeps what is freed). Late answers are told, not judged: a sanitizer, or a machine with other work,
// makes them.
#include "format/wire.h"
#include "format/zmtp.h"
#include "loopback.h"
#include "serve/raw_socket.h"
#include "serve/server.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#ifdef __SANITIZE_ADDRESS__
static const bool keeps_freed = true;
#else
static const bool keeps_freed = false;
#endif
enum { RATE = 50, BARE_RUNS = 300, MAX_BAD = 32, SIDE = 224, MINUTE = 60 };
static const double LATE = 0.02; // seconds

static soma_error err;

static int fail(const char *what) {
    fprintf(stderr, "soak: %s: %s\n", what, err.text);
    return 1;
}

// ---- the server's process

typedef struct start {
    int port, groot_port;
    double median, p99, most; // the policy alone, seconds
    soma_policy_info info;    // its numbers; the texts belong to the other process
    char cameras[SOMA_MAX_CAMERAS][64];
} start;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint8_t picture[SIDE * SIDE * 3];
static float state[1024];

static soma_obs look(const start *s) {
    soma_obs obs = {.prompt = "touch the red cube", .state = state, .n_state = s->info.n_state, .n_images = s->info.n_cameras};
    for (int i = 0; i < obs.n_images; i++) obs.images[i] = (soma_image){s->cameras[i], picture, SIDE, SIDE};
    return obs;
}

static soma_status time_alone(start *s, const soma_policy *policy) {
    static double seconds[BARE_RUNS];
    soma_pilot *pilot = NULL;
    soma_actions actions;
    soma_obs obs = look(s);
    soma_status status = soma_pilot_new(&pilot, policy, NULL, &err);
    for (int i = -20; i < BARE_RUNS && !status; i++) {
        double begin = soma__seconds();
        status = soma_pilot_act(pilot, &obs, &actions, &err);
        if (i >= 0) seconds[i] = soma__seconds() - begin;
    }
    soma_pilot_free(pilot);
    qsort(seconds, BARE_RUNS, sizeof *seconds, by_value);
    s->median = seconds[BARE_RUNS / 2];
    s->p99 = seconds[BARE_RUNS * 99 / 100];
    s->most = seconds[BARE_RUNS - 1];
    return status;
}

static int serve(const char *path, int to) {
    soma_policy *policy = NULL;
    soma_server *server = NULL;
    soma_policy_opts po = soma_policy_defaults();
    soma_server_opts so = soma__server_defaults();
    po.threads = 1; // the other processors are the clients'
    so.port = so.groot_port = 0;
    so.max_message = 4 << 20;
    so.message_timeout = 2;
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(SIG_BLOCK, &end, NULL);
    if (soma_policy_open(&policy, path, &po, &err)) return fail(path);
    start s = {.info = soma_policy_describe(policy)};
    if (s.info.n_state > (int)SOMA_COUNT(state)) return fail("a policy with more than 1024 numbers of state");
    for (int i = 0; i < s.info.n_cameras; i++) snprintf(s.cameras[i], sizeof s.cameras[i], "%s", s.info.camera_names[i]);
    soma_server_pilots pilots = {.policy = policy, .opts = soma_pilot_defaults()};
    soma_server_policy served = soma__server_pilots(&pilots);
    // as soma serve does: those that wait are answered together where that is faster
    if (time_alone(&s, policy) || soma__server_pilots_measure(&pilots, 8, &err) || soma__server_open(&server, &served, &so, NULL, &err))
        return fail("the server");
    s.port = soma__server_port(server);
    s.groot_port = soma__server_groot_port(server);
    if (write(to, &s, sizeof s) != sizeof s) return fail("the pipe");
    int got;
    sigwait(&end, &got);
    soma__server_close(server);
    soma_policy_close(policy);
    return 0;
}

// ---- bad clients' processes

static uint64_t dice;
static uint32_t roll(uint32_t sides) {
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(dice >> 33) % sides;
}

static void pause_some(int most_ms) { usleep(1000 * roll((uint32_t)most_ms + 1)); }

static void random_bytes(char *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (char)roll(256);
}

static soma_str observation(const start *s) {
    soma_obs obs = look(s);
    soma_str m = {0};
    soma__wire_put_obs(&m, &obs);
    return m;
}

static void leave(int fd) {
    if (roll(2)) { // a reset instead of an orderly end
        struct linger l = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(fd);
}

// A well-formed map in which one thing is not what it should be, or says so of its length.
static soma_str wrong_types(const start *s) {
    static const float odd[3] = {0, 0, NAN};
    soma_str m = {0};
    const int what = (int)roll(8);
    soma__msg_put_map(&m, (size_t)s->info.n_cameras + 1 + (what == 3));
    for (int i = 0; i < s->info.n_cameras; i++) {
        soma__msg_put_str(&m, s->cameras[i]);
        if (what == 0) // floats beyond 0..1
            soma__msg_put_ndarray(&m, "<f8", 3, (int64_t[]){1, 2, 3}, (double[6]){300, -1}, 6 * sizeof(double));
        else if (what == 1) // a shape that its bytes do not fill
            soma__msg_put_ndarray(&m, "|u1", 3, (int64_t[]){INT32_MAX, INT32_MAX, 3}, picture, sizeof picture);
        else if (what == 2)
            soma__msg_put_int(&m, -1);
        else
            soma__msg_put_ndarray(&m, "|u1", 3, (int64_t[]){SIDE, SIDE, 3}, picture, sizeof picture);
    }
    if (what == 3) {
        soma__msg_put_str(&m, "prompt");
        soma__msg_put_array(&m, roll(3));
    }
    soma__msg_put_str(&m, "state");
    if (what == 4)
        soma__msg_put_str(&m, "straight on");
    else if (what == 5)
        soma__msg_put_ndarray(&m, "<f4", 1, (int64_t[]){3}, odd, sizeof odd);
    else if (what == 6)
        soma__msg_put_map(&m, roll(2) ? 0 : UINT32_MAX);
    else if (what == 7)
        soma__msg_put_bin_head(&m, UINT32_MAX);
    else
        soma__msg_put_ndarray(&m, "<f4", 1, (int64_t[]){s->info.n_state}, state, sizeof *state * (size_t)s->info.n_state);
    return m;
}

// Asks again and again and takes the answers byte by byte, through a window that holds little.
static void read_slowly(int fd, const soma_str *m) {
    char byte[64];
    const int room = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room); // the system's least
    struct timeval patience = {0, 100000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    for (int i = 0; i < 5 && raw_frame(fd, 0x82, true, m->len, m->text, m->len); i++) continue;
    raw_timeout(fd, 0.1);
    for (uint32_t i = roll(200); i > 0 && recv(fd, byte, 1 + roll(sizeof byte - 1), 0) != 0; i--) pause_some(20);
}

// One websocket misbehaviour, after a handshake.
static void misbehave(int fd, const start *s, const soma_str *m) {
    char junk[4096];
    size_t n = 1 + roll(sizeof junk - 1);
    soma_str wrong;
    random_bytes(junk, n);
    switch (roll(11)) {
    case 0: raw_frame(fd, 0x82, true, m->len, m->text, m->len / (1 + roll(8))); break; // half a message
    case 1: raw_frame(fd, 0x82, true, n, junk, n); break;                              // no msgpack
    case 2: raw_frame(fd, 0x81, true, n, junk, n); break;                              // text
    case 3: raw_frame(fd, 0x82, true, UINT64_C(1) << (10 + roll(53)), junk, n); break; // huge lengths
    case 4: raw_send(fd, junk, n); break;                                              // no frame
    case 5: raw_frame(fd, (int)roll(256), true, roll(126), junk, roll(126)); break;    // odd flags, lying lengths
    case 6:                                                                            // a valid message with a few bytes changed
        raw_frame(fd, 0x82, true, m->len, m->text, 40);
        random_bytes(junk, 16);
        raw_send(fd, junk, 16);
        raw_send(fd, m->text + 56, m->len - 56);
        break;
    case 7: // asks and never reads
        raw_frame(fd, 0x82, true, m->len, m->text, m->len);
        pause_some(300);
        break;
    case 8:
        wrong = wrong_types(s);
        raw_frame(fd, 0x82, true, wrong.len, wrong.text, wrong.len);
        raw_timeout(fd, 0.1);
        recv(fd, junk, sizeof junk, 0);
        soma__str_free(&wrong);
        break;
    case 9: read_slowly(fd, m); break;
    default: // drips
        for (int i = 0; i < 20 && raw_frame(fd, i ? 0 : 2, true, 1, junk, 1); i++) pause_some(30);
    }
}

static void misbehave_groot(int fd, const soma_str *m) {
    char junk[4096];
    size_t n = 1 + roll(sizeof junk - 1);
    soma_str out = {0};
    random_bytes(junk, n);
    if (roll(8)) soma__zmtp_put_greeting(&out, roll(10) ? "REQ" : "PUB");
    unsigned char lead[11];
    size_t size = roll(2) ? m->len : n, from = soma__zmtp_lead(lead, roll(4) ? size : (size_t)1 << roll(60)); // huge lengths
    if (roll(4)) soma__str_add_bytes(&out, lead + from, sizeof lead - from);
    if (roll(3)) soma__str_add_bytes(&out, size == n ? junk : m->text, roll(2) ? size : roll((uint32_t)size));
    if (!roll(4)) soma__str_add(&out, "\x80\x02}q.");
    raw_send(fd, out.text, out.len);
    soma__str_free(&out);
}

static void get_something(int fd) {
    static const char *const paths[] = {"/metrics", "/metadata", "/healthz", "/", "/../../etc/passwd", "/%00"};
    char ask[200], answer[2000];
    int n =
        snprintf(ask, sizeof ask, "%s %s HTTP/1.%u\r\nHost: x\r\n\r\n", roll(4) ? "GET" : "POST", paths[roll(SOMA_COUNT(paths))], roll(3));
    raw_send(fd, ask, roll(3) ? (size_t)n : roll((uint32_t)n));
    raw_timeout(fd, 0.05);
    if (roll(2)) raw_read(fd, answer, 100);
}

static _Noreturn void be_bad(const start *s, uint64_t seed) {
    dice = seed * 2654435761u + 1;
    soma_str m = observation(s);
    for (;;) {
        bool groot = roll(3) == 0;
        int fd = raw_connect(groot ? s->groot_port : s->port);
        if (fd < 0) {
            pause_some(50);
            continue;
        }
        if (groot)
            misbehave_groot(fd, &m);
        else if (!roll(4))
            get_something(fd);
        else if (roll(8) && raw_handshake(fd) == 101)
            misbehave(fd, s, &m);
        pause_some(40);
        leave(fd);
    }
}

// ---- the good client

// Resident bytes of a process, in MiB; 0: it is gone.
static double resident(pid_t pid) {
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

typedef struct tally {
    double *seconds;
    size_t n, room, n_late, n_failed;
} tally;

static void tell(const char *when, tally *t, double memory, double first) {
    qsort(t->seconds, t->n, sizeof *t->seconds, by_value);
    double p50 = t->n ? 1e3 * t->seconds[t->n / 2] : 0, p99 = t->n ? 1e3 * t->seconds[t->n * 99 / 100] : 0,
           most = t->n ? 1e3 * t->seconds[t->n - 1] : 0;
    printf("%s: %zu answers, p50 %.2f ms, p99 %.2f ms, most %.2f ms, %zu later than %.0f ms, %zu failed; server %.1f MiB (%+.1f)\n", when,
           t->n, p50, p99, most, t->n_late, 1e3 * LATE, t->n_failed, memory, memory - first);
    fflush(stdout);
}

static bool ask(soma_wire **w, const start *s, tally *t) {
    char address[64];
    soma_actions a;
    soma_obs obs = look(s);
    snprintf(address, sizeof address, "127.0.0.1:%d", s->port);
    if (!*w && soma__wire_connect(w, address, NULL, &err)) return false;
    double begin = soma__seconds();
    if (soma__wire_infer(*w, &obs, &a, &err)) {
        fail("an answer");
        soma__wire_close(*w);
        *w = NULL;
        return false;
    }
    double seconds = soma__seconds() - begin;
    if (!soma__grow((void **)&t->seconds, &t->room, t->n + 1, sizeof *t->seconds)) return false;
    t->seconds[t->n++] = seconds;
    t->n_late += seconds > LATE;
    return true;
}

// A bad client is far away: what it computes itself must not hold up a server that was given a processor (chrt, taskset).
static pid_t start_bad(const start *s, uint64_t seed) {
    pid_t pid = fork();
    if (pid == 0) {
        sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
        be_bad(s, seed);
    }
    return pid;
}

static void run(const start *s, pid_t server, double seconds, pid_t *bad, int n_bad, uint64_t seed, tally *t, double *first, double *last) {
    soma_wire *w = NULL;
    double begin = soma__seconds(), next_word = MINUTE;
    dice = seed;
    // memory is compared once everything has been touched: after a tenth of the time, or a minute
    double settled = fmin(seconds / 10, MINUTE);
    for (int64_t i = 0; soma__seconds() - begin < seconds; i++) {
        double wait = begin + (double)i / RATE - soma__seconds();
        if (wait > 0) usleep((useconds_t)(1e6 * wait));
        if (!ask(&w, s, t)) t->n_failed++;
        double now = soma__seconds() - begin;
        if (!*first && now > settled) *first = resident(server);
        if (now > next_word) {
            char when[40];
            snprintf(when, sizeof when, "%.0f s", now);
            tell(when, t, resident(server), *first);
            next_word += MINUTE;
        }
        if (n_bad && !roll(RATE)) { // once a second one is killed, wherever it is
            int k = (int)roll((uint32_t)n_bad);
            kill(bad[k], SIGKILL);
            waitpid(bad[k], NULL, 0);
            bad[k] = start_bad(s, seed + 1000 + (uint64_t)i);
        }
    }
    *last = resident(server);
    soma__wire_close(w);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: soak POLICY SECONDS [BAD CLIENTS] [SEED]\n");
        return 2;
    }
    double seconds = strtod(argv[2], NULL), first = 0, last = 0;
    int n_bad = argc > 3 ? atoi(argv[3]) : 4, pipes[2], end = 0;
    uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    pid_t bad[MAX_BAD];
    start s;
    tally t = {0};
    if (n_bad < 0 || n_bad > MAX_BAD || !loopback_ready() || pipe(pipes)) return 2;
    pid_t server = fork();
    if (server == 0) exit(serve(argv[1], pipes[1]));
    close(pipes[1]);
    if (read(pipes[0], &s, sizeof s) != sizeof s) return 1;
    printf("the policy alone: p50 %.2f ms, p99 %.2f ms, most %.2f ms; %d bad clients, %.0f s, seed %llu\n", 1e3 * s.median, 1e3 * s.p99,
           1e3 * s.most, n_bad, seconds, (unsigned long long)seed);
    fflush(stdout);
    for (int i = 0; i < n_bad; i++) bad[i] = start_bad(&s, seed + (uint64_t)i);
    run(&s, server, seconds, bad, n_bad, seed, &t, &first, &last);
    for (int i = 0; i < n_bad; i++) {
        kill(bad[i], SIGKILL);
        waitpid(bad[i], NULL, 0);
    }
    tell("in all", &t, last, first);
    kill(server, SIGTERM);
    waitpid(server, &end, 0);
    bool ended = WIFEXITED(end) && WEXITSTATUS(end) == 0, grew = !keeps_freed && last > first * 1.05 + 8;
    if (!ended) printf("the server did not end as it should (status %d)\n", end);
    if (grew) printf("the server's memory grew\n");
    soma__free(t.seconds);
    return !ended || grew || t.n_failed || !t.n;
}
