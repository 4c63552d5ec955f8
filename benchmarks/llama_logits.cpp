// llama_logits MODEL IDS WINDOW THREADS OUT: what llama.cpp makes of token ids, as plain numbers.
//
// IDS holds int32 ids; they are cut into windows, each a sequence of its own. OUT gets float32 [ids, vocabulary]: after
// each id, the logits of the next. Everything but the threads is as llama-server has it by default.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "llama.h"

namespace {

[[noreturn]] void fail(const char *what) {
    std::fprintf(stderr, "llama_logits: %s\n", what);
    std::exit(1);
}

std::vector<int32_t> read_ids(const char *path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) fail("no file of ids");
    std::vector<int32_t> ids(static_cast<size_t>(file.tellg()) / sizeof(int32_t));
    file.seekg(0);
    file.read(reinterpret_cast<char *>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof(int32_t)));
    return ids;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 6) fail("usage: llama_logits MODEL IDS WINDOW THREADS OUT");
    const std::vector<int32_t> ids = read_ids(argv[2]);
    const int window = std::atoi(argv[3]), threads = std::atoi(argv[4]);

    llama_backend_init();
    llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) fail("the model does not load");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = static_cast<uint32_t>(window);
    params.n_threads = params.n_threads_batch = threads;
    llama_context *context = llama_init_from_model(model, params);
    if (!context) fail("no context");
    const auto vocabulary = static_cast<std::streamsize>(llama_vocab_n_tokens(llama_model_get_vocab(model)));

    std::ofstream out(argv[5], std::ios::binary);
    llama_batch batch = llama_batch_init(window, 0, 1);
    for (size_t start = 0; start < ids.size(); start += static_cast<size_t>(window)) {
        batch.n_tokens = static_cast<int32_t>(std::min(ids.size() - start, static_cast<size_t>(window)));
        for (int32_t i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = ids[start + static_cast<size_t>(i)];
            batch.pos[i] = i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = 1;
        }
        llama_memory_clear(llama_get_memory(context), true);
        if (llama_decode(context, batch) != 0) fail("llama_decode failed");
        const std::streamsize bytes = batch.n_tokens * vocabulary * static_cast<std::streamsize>(sizeof(float));
        out.write(reinterpret_cast<const char *>(llama_get_logits(context)), bytes);
    }
    if (!out) fail("the logits could not be written");
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
