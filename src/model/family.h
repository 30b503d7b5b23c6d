// SPDX-License-Identifier: Apache-2.0
// What a network family is to the rest: a config, its sizes, the graphs it builds, and how an observation becomes their inputs. Adding a
// family is adding a folder src/model/<name>/ that exports `const soma_family soma__family_<name>`.
//
// A family's work is programs over the same weights:
//   ENCODE   what is computed once per observation; leaves its result in states (the KV cache of pi0)
//   DENOISE  one step of the sampler, from (x_t, time) and those states to (v_t, x_next); families without a loop have one step
//   DECODE   in DENOISE's place where the chunk is written as tokens: the last token in, "logits" [B, V] of the next one out. ENCODE gives
//            the first token's "logits".
//   TRAIN    a batch of demonstrations to "loss" [1]
//   SCHEDULE what depends on the flow's times alone, once per schedule: from "time" [steps] into states (soma_saving)
#ifndef SOMA_MODEL_FAMILY_H
#define SOMA_MODEL_FAMILY_H

#include "base/json.h"
#include "graph/plan.h"
#include "nn/nn.h"
#include "text/prompt.h"
#include "transform/resize.h"

typedef struct soma_family soma_family;

enum { SOMA_MODEL_CAMERAS = 8 };

typedef enum soma_program {
    SOMA_PROGRAM_ENCODE,
    SOMA_PROGRAM_DENOISE,
    SOMA_PROGRAM_DECODE,
    SOMA_PROGRAM_TRAIN,
    SOMA_PROGRAM_SCHEDULE
} soma_program;

// How a family writes its chunk as tokens.
typedef struct soma_answer_rule {
    int64_t max;  // tokens of an answer, at most; 0: the chunk is denoised, and nothing below counts
    int64_t skip; // a code c has the id vocab - 1 - skip - c
    int64_t gap;  // positions that are left out before the first written token; openpi's reference leaves out one
    bool lerobot; // LeRobot's form: a BOS begins the answer and "|" ends it. Else openpi's: EOS ends it
} soma_answer_rule;

// What data, policy and trainer must know. Filled by the family; borrowed from the model.
typedef struct soma_model_info {
    const char *type; // "pi0", "pi05": as in config.json's model_type
    int n_cameras;
    const char *cameras[SOMA_MODEL_CAMERAS]; // in the order in which pictures are given
    int64_t image_size;                      // height and width, pixels
    int64_t image_width;                     // where it is another than the height; 0: it is not
    int64_t history;                         // earlier observations that are looked at, too; a chunk begins with the first
    int64_t horizon, action_dim, state_dim;  // of the model; robots with fewer dimensions are padded with zeros
    int64_t max_tokens, vocab;               // prompt length, ids below vocab
    int64_t n_steps;                         // denoising steps of the published sampler
    int64_t given_max;                       // first actions of a chunk that it may be given and continues; 0: it has not learned that
    bool no_flow;                            // its steps are none of a flow: no times, no guidance, no mean chunk
    bool step_noise;                         // every step of the sampler adds noise (soma_batch.step_noise)
    double noise;                            // standard deviation of what it starts from: 1, or 0 where only the mean chunk was learned
    bool state_input;                        // false: the state reaches the model in the prompt's text, or not at all
    soma_prompt_form form;                   // of the text that it is given, where its robot does not say another
    soma_resize_rule resize;                 // of its pictures, where a robot is made for it
    const char *tokenizer;                   // whose file released checkpoints need and do not have, for a sentence; NULL: PaliGemma's
    soma_answer_rule answer;
} soma_model_info;

// Width and pixels of the model's pictures.
static inline int64_t soma__image_width(const soma_model_info *info) { return info->image_width ? info->image_width : info->image_size; }
static inline int64_t soma__image_pixels(const soma_model_info *info) { return info->image_size * soma__image_width(info); }

// Tokens that an observation's prompt may take, the BOS behind it included where the form has one.
static inline int64_t soma__prompt_room(const soma_model_info *info) { return info->max_tokens + info->answer.lerobot; }

// The program that follows ENCODE.
static inline soma_program soma__step_program(const soma_model_info *info) {
    return info->answer.max ? SOMA_PROGRAM_DECODE : SOMA_PROGRAM_DENOISE;
}

// The first member of every family's config. Const after it was made.
typedef struct soma_model {
    const soma_family *family;
    soma_model_info info;
} soma_model;

// What acting leaves out or computes once, exactly: absent cameras and places behind the longest prompt are not in the prefix; DENOISE
// reads what SCHEDULE has kept, by "step" i32 [B] in place of "time"; what of the suffix depends on neither time nor noise (pi0's state
// token) stands at the prefix's end. A batch is prepared with the saving that the graphs were built with.
typedef struct soma_saving {
    uint32_t cameras; // bit i: camera i is looked at; the others are absent from every row
    int64_t tokens;   // of the prompt; no row has one behind them
    int64_t steps;    // of the flow
} soma_saving;

typedef struct soma_build {
    soma_program program;
    int64_t batch;             // B observations
    int64_t draws;             // R of TRAIN: (noise, time) pairs per observation; they share one prefix
    int64_t n_tokens;          // L; 0: soma__prompt_room, and in TRAIN of a written chunk as many more as an answer may have
    soma_dtype image;          // U8: pictures [B, C, H, W, 3]; F32: [B, C, 3, H, W] in -1..1
    soma_precision precision;  // the family's table says which scopes stay f32 beside it
    bool whole;                // ENCODE: also what nobody but a trace reads (the prefix's last layer and norm)
    const soma_saving *saving; // NULL: nothing is saved, and everything can be traced
    bool published;            // ENCODE: also declares the weights that published files hold and nothing computes with
    const soma_adapter *adapters;
    size_t n_adapters;
    const char *const *frozen; // globs over weights' names
    size_t n_frozen;
    bool dropout;   // TRAIN: what the config drops is dropped; false: a loss that is only looked at
    bool recompute; // TRAIN: the backward pass computes each block's intermediates again instead of keeping them
    bool pull;      // of a set of plans: also what real-time chunking's gradient needs (policy/rtc.h)
} soma_build;
soma_build soma__build_defaults(soma_program program, int64_t batch); // one draw, u8 pictures, f32
// What the scopes of this build go by; rules are borrowed like the rest.
soma_scope_spec soma__build_scopes(const soma_build *b, const soma_precision_rule *rules, size_t n_rules);

// ---- an observation batch, in the model's own sizes: images resized, states and actions normalised and padded. All borrowed.
typedef struct soma_batch {
    int64_t n;                 // B
    int64_t n_tokens;          // L; 0: as in soma_build
    const soma_saving *saving; // as the graphs were built
    soma_dtype image_dtype;    // as the graph was built
    const void *images;        // [B, C, H, W, 3] u8 or [B, C, 3, H, W] f32 in -1..1; with a history [B, 1 + history, C, ..], oldest first
    const uint8_t *image_mask; // [B, C]; 0: this camera is absent; NULL: all are there
    const int32_t *tokens;     // [B, L]
    const uint8_t *token_mask; // [B, L]
    const float *state;        // [B, state_dim], with a history [B, 1 + history, state_dim]; NULL where the model has no state input
    const float *step_noise;   // [steps, B, S, A], of models that ask for it
    // TRAIN only; actions NULL: inference
    int64_t draws;              // R
    const float *actions;       // [B, S, A]
    const float *noise;         // [B R, S, A]
    const float *time;          // [B R], in (0, 1]: 1 is pure noise; with given_max [B R, S], 0 where the action is given
    const uint8_t *action_mask; // [B, S, A]; 0: this entry is not part of the loss; NULL: all are
    const uint8_t *action_pad;  // [B, S]; 1: past the episode's end, where the last action is repeated; NULL: none is
    uint64_t seed;              // of what else a family draws for this batch
    // TRAIN of a chunk that is written: `tokens` holds prompt and answer
    const uint8_t *token_causal; // [B, L]; 1: of the answer, which sees what stands before it and itself. NULL: inference
    const uint8_t *token_loss;   // [B, L]; 1: predicting this token is part of the loss
} soma_batch;

// What a batch lets acting save: the cameras that a row has, and the places of the longest prompt, rounded up so that prompts of nearly the
// same length share plans.
soma_saving soma__batch_saving(const soma_model_info *info, const soma_batch *batch, int64_t steps);
// How many cameras and prompt places are left; saving NULL: all.
int64_t soma__saved_cameras(const soma_model_info *info, const soma_saving *saving);
int64_t soma__saved_tokens(const soma_model_info *info, const soma_saving *saving);
static inline bool soma__looked_at(const soma_saving *saving, int64_t camera) { return !saving || saving->cameras >> camera & 1; }

// The arrays that a batch becomes, by the names of the graphs' inputs. Grown on first use, then reused: filling does not allocate.
typedef struct soma_feed_array {
    const char *name;
    const void *data;
    size_t size; // bytes
    void *own;   // NULL: borrowed from the batch
    size_t room;
} soma_feed_array;
enum { SOMA_FEED_ARRAYS = 24 };
typedef struct soma_feed {
    soma_feed_array arrays[SOMA_FEED_ARRAYS];
    size_t n_arrays;
} soma_feed; // {0} is empty and ready
void soma__feed_free(soma_feed *feed);
void soma__feed_borrow(soma_feed *feed, const char *name, const void *data, size_t size);
void *soma__feed_own(soma_feed *feed, const char *name, size_t size); // room to write into; NULL when memory is out
const soma_feed_array *soma__feed_find(const soma_feed *feed, const char *name);
// "loss_weight" [B draws, S, A]: over what counts (action_mask and, where `unpadded`, what is not past an episode's end) equal and one in
// sum, 0 elsewhere. Refuses a batch of which nothing counts.
soma_status soma__feed_loss_weights(soma_feed *feed, const soma_model_info *info, const soma_batch *batch, int64_t draws, bool unpadded,
                                    soma_error *err);
// "images" [B, cameras, ..] and "tokens" [B, places]: what the batch's saving leaves, borrowed where that is all. Refuses ids that the
// model does not know.
soma_status soma__feed_observation(soma_feed *feed, const soma_model_info *info, const soma_batch *batch, soma_error *err);

// Other spellings under which a weight may lie in a published file: where `name` occurs in it, it may read `other`. A name that begins
// with '^' stands for the beginning.
typedef struct soma_alias {
    const char *name, *other;
    bool openpi; // openpi writes its files in the other spelling
} soma_alias;

// What a tensor of a published checkpoint is for. `glob` is matched against the name that graphs give it; the first match counts.
typedef struct soma_purpose {
    const char *glob, *words;
} soma_purpose;

// A checkpoint's tensors as a family looks at them: the dimensions of `name` (as graphs write it, found under any spelling), or -1: absent.
typedef struct soma_shapes {
    int (*shape)(const void *ctx, const char *name, int64_t shape[SOMA_MAX_DIMS]);
    const void *ctx;
} soma_shapes;

// Layers that a published LoRA recipe of the family gives a pair to, and what it freezes for that.
typedef struct soma_lora_rule {
    const char *part;   // "language", "expert": recipes may take one alone
    const char *layers; // glob over the layers' names; NULL: this row only freezes
    const char *frozen; // glob over weights' names that such a recipe does not train; NULL: said by another row
    soma_adapter_form form;
    int64_t rank, n_heads;
    bool scaled; // by alpha / rank; false: not at all
} soma_lora_rule;
enum { SOMA_LORA_RULES = 24 };

// What fine-tuning a published checkpoint goes by.
typedef struct soma_tuning {
    const char *vlm;    // glob over the vision and language weights, which may come from another checkpoint; NULL: there are none
    const char *frozen; // glob over what the published recipe keeps as it is; NULL: it trains everything
    const char *peft;   // LeRobot's layers for PEFT's pairs: extended regular expression over their whole names; NULL: it has none
} soma_tuning;

// A tensor of LeRobot's files that follows from the sizes: nobody trains or reads it, and LeRobot's strict loader asks for it.
typedef struct soma_written_table {
    char name[64]; // as in the file
    int n_dims;
    int64_t shape[SOMA_MAX_DIMS];
} soma_written_table;

// How LeRobot writes a policy of the family, beyond what all of its configs have.
typedef struct soma_lerobot {
    const char *tokenizer; // the name of the text tokenizer; NULL: there is no text
    bool bare;             // names of weights have no "model." in front
    const char *new_line;  // the step that ends the prompt with a newline; NULL: the prompt tells the state instead
    // Fields of config.json; a new reference, NULL when memory is out. *own: LeRobot cannot be told these sizes, and its loader will refuse
    // the fields that tell them to soma.
    json_t *(*fields)(const soma_model *model, soma_dtype dtype, bool *own);
    // Describes table i and, where `values` is not NULL, writes it; false: there are only i. NULL: there is none.
    bool (*table)(const soma_model *model, int i, soma_written_table *table, float *values);
} soma_lerobot;

struct soma_family {
    const char *name;             // "pi0"
    const char *const *types;     // values of model_type that it answers to, NULL at the end
    const char *const *presets;   // NULL at the end; the first is the default
    const char *normalise;        // the rule (transform/normalise.h) of states and actions where none is asked for; NULL: openpi's
    bool fits;                    // its sizes are the robot's and its pictures the cameras', whatever the preset: it pads nothing
    const soma_alias *aliases;    // ends with name NULL
    const soma_purpose *purposes; // ends with glob NULL; NULL: none are told
    // Looks at a checkpoint's tensors: adds to `config` what it does not say and they do (the type, sizes), and refuses one that
    // contradicts them, all contradictions in one sentence. SOMA_NOT_FOUND: they are not this family's. NULL: configs of this family say it
    // all.
    soma_status (*recognise)(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err);
    // Reads "preset" (a starting point) and every size that is given beside it. *model is released by soma__model_free.
    soma_status (*model_new)(soma_model **model, const json_t *config, const char *where, soma_error *err);
    json_t *(*config)(const soma_model *model); // the whole config, as model_new reads it; a new reference, NULL when memory is out
    void (*build)(const soma_model *model, const soma_build *build, soma_graph *graph);
    soma_status (*prepare)(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
    // openpi's LoRA recipe; returns how many rows it has written. NULL: there is none.
    size_t (*lora)(const soma_model *model, soma_lora_rule rules[SOMA_LORA_RULES]);
    soma_tuning tuning;
    soma_lerobot lerobot; // .fields NULL: LeRobot has no such policy
};

extern const soma_family *const soma__family_registry[]; // made by CMake, NULL at its end

const soma_family *soma__family_find(const char *type); // which answers to this type; NULL: none does
// Finds the family by "model_type" (or LeRobot's "type"). `where` names the config in sentences.
soma_status soma__model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
// The config of a family's preset, with the sizes of a JSON file that differ from it ("": none), a new reference; and its model.
soma_status soma__preset_config(json_t **config, const char *family, const char *preset, const char *file, soma_error *err);
soma_status soma__model_preset(soma_model **model, const char *family, const char *preset, const char *file, soma_error *err);
void soma__model_free(soma_model *model); // NULL allowed
// Finds the family by the config or, where that says none, by the tensors, and lets it complete the config.
soma_status soma__model_recognise(json_t *config, soma_shapes (*shapes)(void *ctx, const soma_family *family), void *ctx, const char *where,
                                  soma_error *err);
// Adds the weights that acting reads to a layout, as F32; all: every weight that a published file of this model holds.
soma_status soma__model_weights(soma_layout *layout, const soma_model *model, bool all, soma_error *err);
const char *soma__model_purpose(const soma_model *model, const char *name); // a few words; "" when there are none

#endif
