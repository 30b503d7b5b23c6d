// SPDX-License-Identifier: Apache-2.0
// The loop: fill, run, accumulate, step; now and then look at the held-out episodes and save. What it prints is its caller's affair.
#include "train/trainer.h"

#include <math.h>
#include <string.h>

enum { LOOK_BATCHES = 8 };

static soma_status run_pass(soma_trainer *t, soma_pass *pass, soma_mixture *rows, int64_t index, bool training, double *loss,
                            soma_error *err) {
    float value;
    SOMA_TRY(soma__pass_fill(t, pass, rows, index, training, err));
    soma__frame_run(pass->frame);
    SOMA_TRY(soma__frame_get(pass->frame, "loss", &value, sizeof value, err));
    *loss += value;
    return isfinite(value)
               ? SOMA_OK
               : soma__fail(err, SOMA_BAD_INPUT, "step %lld: the loss is no finite number; a smaller --lr may help", (long long)t->step);
}

// The mean loss of the averaged weights over the same batches and draws each time: of what is being learned, the mean chunk or the flow.
static soma_status look(soma_trainer *t, double *loss, soma_error *err) {
    *loss = 0;
    t->look.mean = t->step <= t->o.mean_steps;
    SOMA_TRY(soma__mixture_seek(&t->looks, 0, err));
    for (int64_t i = 0; i < LOOK_BATCHES; i++) SOMA_TRY(run_pass(t, &t->look, &t->looks, i, false, loss, err));
    *loss /= LOOK_BATCHES;
    return SOMA_OK;
}

static soma_status one_step(soma_trainer *t, soma_train_progress *p, soma_error *err) {
    const soma_train_opts *o = &t->o;
    p->loss = 0;
    for (int64_t a = 0; a < o->accumulate; a++) {
        SOMA_TRY(
            run_pass(t, t->step < o->mean_steps ? &t->mean_pass : &t->pass, &t->rows, t->step * o->accumulate + a, true, &p->loss, err));
        soma__optimiser_accumulate(t->optimiser);
    }
    p->loss /= (double)o->accumulate;
    p->lr = soma__lr_at(t->step, o->steps, o->warmup, o->lr, o->lr_end > 0 ? o->lr_end : o->lr / 10);
    soma_adamw_step s = {.step = t->step + 1,
                         .lr = p->lr,
                         .beta1 = o->beta1,
                         .beta2 = o->beta2,
                         .eps = o->eps,
                         .weight_decay = o->weight_decay,
                         .clip = o->clip,
                         .ema = SOMA_MIN(o->ema, (double)(t->step + 1) / (double)(t->step + 10)), // the average forgets the start sooner
                         .grad_scale = 1.0 / (double)o->accumulate};
    p->grad_norm = soma__optimiser_update(t->optimiser, &s);
    p->step = ++t->step;
    return SOMA_OK;
}

static soma_status after_step(soma_trainer *t, soma_train_progress *p, soma_error *err) {
    const soma_train_opts *o = &t->o;
    bool end = t->step == o->steps;
    p->eval_loss = NAN;
    bool due = t->step % o->eval_every == 0 || end, keep = !t->looks.n || !strcmp(o->keep, "last");
    if (t->looks.n && due) {
        SOMA_TRY(look(t, &p->eval_loss, err));
        int64_t before = (t->step - 1) / o->eval_every * o->eval_every; // the last look; its loss was another if it was of the means
        if (t->step > o->mean_steps && before <= o->mean_steps) t->best = INFINITY;
        keep |= p->eval_loss < t->best;
        t->best = fmin(t->best, p->eval_loss);
    }
    if (due && keep) SOMA_TRY(soma__trainer_publish(t, "ema", err));
    SOMA_TRY(soma__metrics_add(o->out, p, err));
    if (t->step % o->save_every == 0 || end) SOMA_TRY(soma__trainer_save(t, err));
    return SOMA_OK;
}

static soma_status run(soma_trainer *t, soma_train_report *report, void *user, soma_error *err) {
    double started = soma__seconds();
    int64_t first = t->step, per_step = t->o.batch * t->o.draws;
    soma_train_progress p = {.steps = t->o.steps, .gflop_per_sample = t->pass.plan->flops / 1e9 / (double)t->pass.n};
    SOMA_TRY(soma__mixture_seek(&t->rows, t->step * t->o.accumulate, err));
    while (t->step < t->o.steps) {
        SOMA_TRY(one_step(t, &p, err));
        double seconds = soma__seconds() - started;
        p.samples_per_second = (double)((t->step - first) * per_step) / (double)t->o.draws / seconds;
        p.wait_share = soma__mixture_waited(&t->rows) / seconds;
        SOMA_TRY(after_step(t, &p, err));
        if (report && !report(user, &p)) {
            SOMA_TRY(soma__trainer_save(t, err));
            return soma__fail(err, SOMA_CANCELLED, "stopped after step %lld of %lld; --resume goes on from there", (long long)t->step,
                              (long long)t->o.steps);
        }
    }
    return soma__curves_write(t->o.out, t->o.out, err);
}

soma_status soma_train(const soma_train_opts *opts, soma_train_report *report, void *user, soma_error *err) {
    return soma__train(opts, NULL, report, user, err);
}

soma_status soma__train(const soma_train_opts *opts, const soma_train_watch *watch, soma_train_report *report, void *user,
                        soma_error *err) {
    soma_trainer t;
    SOMA_TRY(soma__trainer_open(&t, opts, watch, err));
    soma_status status = SOMA_OK;
    if (!t.o.steps)
        status = soma__trainer_publish(&t, "ema", err);
    else {
        if (!t.o.resume) status = soma__metrics_cut(t.o.out, 0, err);
        if (status == SOMA_OK) status = run(&t, report, user, err);
    }
    soma__trainer_close(&t);
    return status;
}
