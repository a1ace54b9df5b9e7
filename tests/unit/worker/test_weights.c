// weights and warm shards, on two backends: cpu as it is, and cpu that says that it places weights
// in device memory of its own (in the same layout). Slices are the same on both, at any rank count;
// a warm shard gives the same bytes, or is refused; who is killed meanwhile leaves nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernels/backend.h"
#include "unit/worker/small_model.h"
#include "worker/warm_shard.h"
#include "worker/weights.h"

// ---- reads and writes that stand still, to be killed in

static atomic_bool reads_hang, writes_hang;
static const char *touched;      // the file that gets another time ...
static atomic_int touched_after; // ... after so many reads; 0: never

static void stand_while(atomic_bool *flag) {
    while (atomic_load(flag)) clock_sleep_until(clock_now_ns() + CLOCK_MS);
}

ssize_t pread(int fd, void *out, size_t size, off_t offset) {
    stand_while(&reads_hang);
    if (atomic_load(&touched_after) > 0 && atomic_fetch_sub(&touched_after, 1) == 1)
        utimensat(AT_FDCWD, touched, NULL, 0);
    return syscall(SYS_pread64, fd, out, size, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    stand_while(&writes_hang);
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

// ---- a backend with device memory

static kernels_ops placing_ops;

static size_t placed_bytes(const kernels *k, const kernels_weight *w) {
    (void)k;
    return (size_t)w->rows * dtype_row_bytes(w->type, (size_t)w->cols);
}

static status place(kernels *k, const kernels_weight *host, void *device, kernels_weight *out) {
    (void)k;
    size_t row = dtype_row_bytes(host->type, (size_t)host->cols);
    for (int r = 0; r < host->rows; r++)
        memcpy((char *)device + (size_t)r * row,
               (const char *)host->data + (size_t)r * host->row_stride, row);
    *out = *host;
    out->data = device;
    out->row_stride = row;
    return status_ok();
}

typedef struct bench {
    char folder[64], path[96];
    uint64_t first; // offset of the first tensor's bytes
    kernels *cpu, *placing;
    model *model;
    progress progress;
} bench;

static void open_model(bench *b) {
    model_close(b->model);
    status s = model_open(b->path, NULL, &b->model);
    assert_string_equal(s.message, "");
}

static int set_up(void **state) {
    bench *b = calloc(1, sizeof *b);
    *state = b;
    snprintf(b->folder, sizeof b->folder, "/tmp/octant-test-weights-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    snprintf(b->path, sizeof b->path, "%s/small.gguf", b->folder);
    b->first = small_model_write(b->path, &small_dense, 1);
    assert_true(b->first > 0);
    assert_int_equal(kernels_create_cpu(1, -1, NULL, &b->cpu).code, STATUS_OK);
    assert_int_equal(kernels_create_cpu(1, -1, NULL, &b->placing).code, STATUS_OK);
    placing_ops = *b->placing->ops;
    placing_ops.weight_bytes = placed_bytes;
    placing_ops.weight_place = place;
    b->placing->ops = &placing_ops;
    open_model(b);
    return 0;
}

static int tear_down(void **state) {
    bench *b = *state;
    model_close(b->model);
    kernels_destroy(b->cpu);
    kernels_destroy(b->placing);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", b->folder);
    int result = system(command);
    free(b);
    return result;
}

// ---- loading and comparing

static shard shard_of(const bench *b, int ranks, int rank) {
    shard s;
    assert_int_equal(shard_plan(model_get_config(b->model), ranks, 1, rank, &s).code, STATUS_OK);
    return s;
}

static status load(bench *b, kernels *k, const shard *s, const char *warm, weights **out) {
    weights_options o = {.model = b->model,
                         .shard = s,
                         .rank = 0,
                         .ranks = 2,
                         .kernels = k,
                         .progress = &b->progress,
                         .warm_folder = warm,
                         .warm_bytes = 1 << 30,
                         .deadline_ns = clock_now_ns() + 60 * CLOCK_SECOND};
    return weights_load(&o, out);
}

static weights *loaded(bench *b, kernels *k, const shard *s, const char *warm) {
    weights *w = NULL;
    status st = load(b, k, s, warm, &w);
    if (!status_is_ok(&st)) fail_msg("%s", st.message);
    return w;
}

static void compare_matrix(const kernels_weight *a, const kernels_weight *b, const char *what) {
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    assert_int_equal(a->type, b->type);
    size_t row = dtype_row_bytes(a->type, (size_t)a->cols);
    for (int r = 0; r < a->rows; r++)
        if (memcmp((const char *)a->data + (size_t)r * a->row_stride,
                   (const char *)b->data + (size_t)r * b->row_stride, row) != 0)
            fail_msg("%s: row %d differs", what, r);
}

static void compare(const weights *a, const weights *b) {
    int experts = a->layers[0].router.rows > 0 ? a->layers[0].router.rows : 1;
    compare_matrix(&a->embedding, &b->embedding, "embedding");
    compare_matrix(&a->output, &b->output, "output");
    assert_memory_equal(a->output_norm, b->output_norm, SMALL_D * sizeof(float));
    for (int i = 0; i < SMALL_LAYERS; i++) {
        const layer_weights *x = &a->layers[i], *y = &b->layers[i];
        compare_matrix(&x->q, &y->q, "q");
        compare_matrix(&x->k, &y->k, "k");
        compare_matrix(&x->v, &y->v, "v");
        compare_matrix(&x->o, &y->o, "o");
        for (int e = 0; e < experts; e++) {
            compare_matrix(&x->gate[e], &y->gate[e], "gate");
            compare_matrix(&x->up[e], &y->up[e], "up");
            compare_matrix(&x->down[e], &y->down[e], "down");
        }
        if (x->router.rows > 0) compare_matrix(&x->router, &y->router, "router");
        assert_memory_equal(x->attn_norm, y->attn_norm, SMALL_D * sizeof(float));
        assert_memory_equal(x->ffn_norm, y->ffn_norm, SMALL_D * sizeof(float));
    }
}

static void test_the_same_slices_on_both(void **state) {
    bench *b = *state;
    for (int ranks = 1; ranks <= SMALL_H; ranks++) {
        for (int rank = 0; rank < ranks; rank++) {
            shard s = shard_of(b, ranks, rank);
            weights *views = loaded(b, b->cpu, &s, NULL);
            weights *placed = loaded(b, b->placing, &s, NULL);
            compare(views, placed);
            assert_true(b->progress.load == 1);
            if (ranks == SMALL_H) assert_int_equal(views->layers[0].o.type, DTYPE_F32); // unpacked
            weights_close(views);
            weights_close(placed);
        }
    }
}

static void check_placed(const bench *b, const kernels_weight *w) {
    size_t each = placed_bytes(b->placing, w);
    for (int e = 0; e < SMALL_E; e++) {
        assert_true(w[e].expert);
        assert_ptr_equal(w[e].data, (const char *)w->data + (size_t)e * each);
    }
}

static void *a_stream(const kernels *k) {
    return (void *)k;
}

// Every rank has its columns of every expert, on a device one behind another, and the whole router.
static void test_experts(void **state) {
    bench *b = *state;
    assert_true(small_model_write(b->path, &small_mixture, 2) > 0);
    open_model(b);
    for (int ranks = 1; ranks <= SMALL_H; ranks++) {
        for (int rank = 0; rank < ranks; rank++) {
            shard s = shard_of(b, ranks, rank);
            weights *views = loaded(b, b->cpu, &s, NULL);
            weights *placed = loaded(b, b->placing, &s, b->folder);
            weights *warm = loaded(b, b->placing, &s, b->folder);
            compare(views, placed);
            compare(views, warm);
            const layer_weights *last = &warm->layers[SMALL_LAYERS - 1];
            assert_int_equal(last->router.rows, SMALL_E);
            assert_int_equal(last->down[SMALL_E - 1].cols, s.ffn.end - s.ffn.begin);
            check_placed(b, last->gate);
            check_placed(b, last->up);
            check_placed(b, last->down);
            assert_memory_not_equal(last->up[0].data, last->up[1].data, 64);
            weights_close(views);
            weights_close(placed);
            weights_close(warm);
        }
    }
    placing_ops.stream = a_stream; // a card, then
    shard s = shard_of(b, 1, 0);
    weights *w = NULL;
    status st = load(b, b->placing, &s, NULL, &w);
    assert_int_equal(st.code, STATUS_UNIMPLEMENTED);
    assert_non_null(strstr(st.message, "gate matrices in Q4_0 and their up matrices in Q8_0"));
    assert_null(w);
}

// ---- warm shards

static int shards_in(const bench *b, char *path, size_t size) {
    DIR *folder = opendir(b->folder);
    int count = 0;
    for (struct dirent *e; (e = readdir(folder));) {
        if (!strstr(e->d_name, ".shard")) continue;
        if (path) snprintf(path, size, "%.60s/%.90s", b->folder, e->d_name);
        count++;
    }
    closedir(folder);
    return count;
}

static void flip_byte(const char *path, off_t at, bool keep_time) {
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    int fd = open(path, O_RDWR);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    struct timespec times[2] = {info.st_atim, info.st_mtim};
    if (!keep_time) times[1].tv_nsec = (times[1].tv_nsec + 1000) % 1000000000;
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_a_warm_shard_is_used(void **state) {
    bench *b = *state;
    shard s = shard_of(b, 2, 0);
    char path[160];
    weights *first = loaded(b, b->placing, &s, b->folder);
    assert_int_equal(shards_in(b, path, sizeof path), 1);
    print_message("%s\n", path);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    weights *second = loaded(b, b->placing, &s, b->folder);
    compare(first, second);
    // The proof that it was used: the file's first weight is another one meanwhile.
    flip_byte(b->path, (off_t)b->first, true);
    open_model(b);
    weights *third = loaded(b, b->placing, &s, b->folder);
    compare(first, third);
    weights *cold = loaded(b, b->placing, &s, NULL);
    assert_true(memcmp(cold->embedding.data, third->embedding.data, 2) != 0);
    weights_close(first);
    weights_close(second);
    weights_close(third);
    weights_close(cold);
}

// What the files hold, whatever the shard says; and afterwards the shard is right again.
static void check_rebuilt(bench *b, const shard *s) {
    weights *cold = loaded(b, b->placing, s, NULL);
    for (int i = 0; i < 2; i++) {
        weights *warm = loaded(b, b->placing, s, b->folder);
        compare(cold, warm);
        weights_close(warm);
        assert_int_equal(shards_in(b, NULL, 0), 1);
    }
    weights_close(cold);
}

static void test_another_is_refused_and_rebuilt(void **state) {
    bench *b = *state;
    char path[160];
    shard s = shard_of(b, 2, 0), other = shard_of(b, 2, 1);
    weights_close(loaded(b, b->placing, &s, b->folder));
    check_rebuilt(b, &other); // under the same name
    check_rebuilt(b, &s);
    flip_byte(b->path, (off_t)b->first, false); // changed, and says so
    open_model(b);
    check_rebuilt(b, &s);
    shards_in(b, path, sizeof path);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    const off_t places[] = {3, 20, 50, 4096 + 5, info.st_size / 2, info.st_size - 4096};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        flip_byte(path, places[i], true);
        check_rebuilt(b, &s);
    }
    assert_int_equal(truncate(path, info.st_size - 4096), 0);
    check_rebuilt(b, &s);
    assert_int_equal(truncate(path, 10), 0);
    check_rebuilt(b, &s);
}

static void test_a_file_that_others_can_write_is_not_used(void **state) {
    bench *b = *state;
    char path[160];
    shard s = shard_of(b, 2, 0);
    weights *first = loaded(b, b->placing, &s, b->folder);
    shards_in(b, path, sizeof path);
    assert_int_equal(chmod(path, 0666), 0);
    flip_byte(b->path, (off_t)b->first, true);
    open_model(b);
    weights *second = loaded(b, b->placing, &s, b->folder); // from the model's file
    assert_true(memcmp(first->embedding.data, second->embedding.data, 2) != 0);
    weights_close(first);
    weights_close(second);
}

static void test_bounds_and_bad_folders_cost_a_warning(void **state) {
    bench *b = *state;
    shard s = shard_of(b, 2, 0);
    weights_options o = {.model = b->model,
                         .shard = &s,
                         .ranks = 2,
                         .kernels = b->placing,
                         .progress = &b->progress,
                         .warm_folder = b->folder,
                         .warm_bytes = 1000,
                         .deadline_ns = clock_now_ns() + 60 * CLOCK_SECOND};
    weights *w = NULL;
    assert_int_equal(weights_load(&o, &w).code, STATUS_OK);
    assert_int_equal(shards_in(b, NULL, 0), 0);
    weights_close(w);
    o.warm_bytes = 1 << 30;
    o.warm_folder = "/nonexistent";
    assert_int_equal(weights_load(&o, &w).code, STATUS_OK);
    weights_close(w);
    o.warm_folder = b->folder;
    o.kernels = b->cpu; // has no device memory to keep
    assert_int_equal(weights_load(&o, &w).code, STATUS_OK);
    assert_int_equal(shards_in(b, NULL, 0), 0);
    weights_close(w);
}

// Starts a load that stands still, kills it, and sees that the next one has all.
static void kill_in(bench *b, atomic_bool *flag) {
    shard s = shard_of(b, 2, 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        atomic_store(flag, true);
        weights *w;
        load(b, b->placing, &s, b->folder, &w);
        _exit(0);
    }
    clock_sleep_until(clock_now_ns() + 300 * CLOCK_MS);
    int how = 0;
    assert_int_equal(waitpid(child, &how, WNOHANG), 0); // it stands
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    check_rebuilt(b, &s);
}

static void test_killed_while_writing(void **state) {
    kill_in(*state, &writes_hang);
}

static void test_killed_while_reading(void **state) {
    bench *b = *state;
    kill_in(b, &reads_hang); // from the model's file
    kill_in(b, &reads_hang); // from the shard
}

static void test_a_file_that_shrinks_is_an_error_not_a_signal(void **state) {
    bench *b = *state;
    shard s = shard_of(b, 2, 0);
    struct stat info;
    assert_int_equal(stat(b->path, &info), 0);
    assert_int_equal(truncate(b->path, (off_t)b->first + 5000), 0);
    kernels *both[] = {b->cpu, b->placing};
    for (int i = 0; i < 2; i++) {
        weights *w = NULL;
        status st = load(b, both[i], &s, NULL, &w);
        print_message("%s\n", st.message);
        assert_int_equal(st.code, STATUS_DATA_LOSS);
        assert_non_null(strstr(st.message, b->path));
        assert_null(w);
    }
}

static void test_a_file_that_changes_meanwhile_is_an_error(void **state) {
    bench *b = *state;
    shard s = shard_of(b, 2, 0);
    const struct {
        kernels *k;
        int reads; // the first are of vectors, the 30th is of a matrix: the file is open long since
    } cases[] = {{b->cpu, 1}, {b->placing, 1}, {b->placing, 30}};
    touched = b->path;
    for (int i = 0; i < 3; i++) {
        weights *w = NULL;
        open_model(b);
        atomic_store(&touched_after, cases[i].reads);
        status st = load(b, cases[i].k, &s, NULL, &w);
        assert_true(atomic_load(&touched_after) <= 0);
        assert_int_equal(st.code, STATUS_DATA_LOSS);
        assert_non_null(strstr(st.message, "changed while it was in use"));
        assert_null(w);
    }
}

int main(void) {
    log_open(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_same_slices_on_both, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_experts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_warm_shard_is_used, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_is_refused_and_rebuilt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_others_can_write_is_not_used, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_bounds_and_bad_folders_cost_a_warning, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_killed_while_writing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_killed_while_reading, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_changes_meanwhile_is_an_error, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_shrinks_is_an_error_not_a_signal, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
