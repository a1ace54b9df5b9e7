// loader, load_file, load_piece: slices of real files reach device memory byte by byte, by direct
// I/O and without, in any cut; files that shrink, change, fail or hang are errors that say where.
//
// pread is ours here, between the loader and the C library, so that a disk can fail on demand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "kernels/stage.h"
#include "worker/load_file.h"
#include "worker/loader.h"

// ---- a disk that fails on demand

typedef enum trouble { NONE, REFUSES_DIRECT, FAILS, SHORT_READS, HANGS } trouble;
static _Atomic trouble disk;
static atomic_int direct_reads;

ssize_t pread(int fd, void *out, size_t size, off_t offset) {
    bool direct = fcntl(fd, F_GETFL) & O_DIRECT;
    if (direct) atomic_fetch_add(&direct_reads, 1);
    switch (atomic_load(&disk)) {
    case REFUSES_DIRECT:
        if (direct) return errno = EINVAL, -1;
        break;
    case FAILS:
        if (offset >= 1 << 20) return errno = EIO, -1;
        break;
    case SHORT_READS: // as signals and network filesystems do: 5000 is no multiple of a block
        if (size > 5000) size = direct ? 4096 : 5000;
        break;
    case HANGS:
        while (atomic_load(&disk) == HANGS) clock_sleep_until(clock_now_ns() + CLOCK_MS);
        break;
    default:
        break;
    }
    return syscall(SYS_pread64, fd, out, size, offset);
}

// ---- two files with matrices in them, one after another at odd offsets

enum { FILES = 2, MATRICES = 6, ITEMS = 2 * MATRICES };

typedef struct matrix {
    int file, rows, cols;
    dtype type;
    size_t offset;
} matrix;

typedef struct bench {
    char folder[64], path[FILES][96];
    matrix matrices[MATRICES];
    char *bytes[FILES]; // what was written
    file_map files[FILES];
    load_item items[ITEMS];
    kernels *kernels;
    progress progress;
} bench;

static const matrix shapes[MATRICES] = {
    {.rows = 1000, .cols = 257, .type = DTYPE_F32},
    {.rows = 33, .cols = 4096, .type = DTYPE_F16},
    {.rows = 7, .cols = 640, .type = DTYPE_Q8_0},
    {.rows = 4096, .cols = 512, .type = DTYPE_BF16},
    {.rows = 300, .cols = 2048, .type = DTYPE_Q4_0},
    {.rows = 16, .cols = 32, .type = DTYPE_F32},
};

static size_t stride_of(const matrix *m) {
    return dtype_row_bytes(m->type, (size_t)m->cols);
}

static void write_files(bench *b) {
    size_t size[FILES] = {1234 + 57, 77};
    for (int i = 0; i < MATRICES; i++) {
        matrix *m = &b->matrices[i];
        *m = shapes[i];
        m->file = i % FILES;
        m->offset = size[m->file];
        size[m->file] += (size_t)m->rows * stride_of(m) + (i < MATRICES - 2 ? 31 : 0);
    }
    rng random = rng_make(7);
    for (int f = 0; f < FILES; f++) {
        snprintf(b->path[f], sizeof b->path[f], "%s/part-%d", b->folder, f);
        b->bytes[f] = malloc(size[f]);
        for (size_t i = 0; i < size[f]; i++) b->bytes[f][i] = (char)rng_below(&random, 256);
        FILE *file = fopen(b->path[f], "wb");
        assert_int_equal(fwrite(b->bytes[f], 1, size[f], file), size[f]);
        assert_int_equal(fclose(file), 0);
        status s = file_map_open(b->path[f], &b->files[f]);
        assert_string_equal(s.message, "");
    }
}

// Of each matrix the middle rows, and the middle columns (on blocks of 32).
static void make_items(bench *b) {
    for (int i = 0; i < MATRICES; i++) {
        const matrix *m = &b->matrices[i];
        const char *data = (const char *)b->files[m->file].bytes + m->offset;
        int first = m->rows / 5, cols = m->cols / 32 / 2 * 32;
        b->items[2 * i] = (load_item){.view = {.data = data + (size_t)first * stride_of(m),
                                               .row_stride = stride_of(m),
                                               .rows = m->rows - first,
                                               .cols = m->cols,
                                               .type = m->type},
                                      .what = "gate matrix",
                                      .layer = i};
        if (cols == 0) cols = m->cols;
        size_t skip = cols < m->cols ? 32 : 0;
        if (skip + (size_t)cols > (size_t)m->cols) skip = 0;
        b->items[2 * i + 1] = (load_item){.view = {.data = data + dtype_row_bytes(m->type, skip),
                                                   .row_stride = stride_of(m),
                                                   .rows = m->rows,
                                                   .cols = cols,
                                                   .type = m->type},
                                          .what = "down matrix",
                                          .layer = i};
    }
}

static size_t item_row(const load_item *item) {
    return dtype_row_bytes(item->view.type, (size_t)item->view.cols);
}

static bench *set_up(const char *where) {
    bench *b = calloc(1, sizeof *b);
    snprintf(b->folder, sizeof b->folder, "%s/octant-test-loader-XXXXXX", where);
    assert_non_null(mkdtemp(b->folder));
    write_files(b);
    make_items(b);
    status s = kernels_create_cpu(1, -1, NULL, &b->kernels);
    assert_string_equal(s.message, "");
    atomic_store(&disk, NONE);
    atomic_store(&direct_reads, 0);
    return b;
}

static void take_memory(bench *b) {
    for (int i = 0; i < ITEMS; i++) {
        size_t bytes = (size_t)b->items[i].view.rows * item_row(&b->items[i]);
        status s = kernels_alloc(b->kernels, bytes, &b->items[i].device);
        assert_string_equal(s.message, "");
        memset(b->items[i].device, 0xee, bytes);
    }
}

static void tear_down(bench *b) {
    atomic_store(&disk, NONE);
    for (int i = 0; i < ITEMS; i++) kernels_free(b->kernels, b->items[i].device);
    for (int f = 0; f < FILES; f++) {
        file_map_close(&b->files[f]);
        unlink(b->path[f]);
        free(b->bytes[f]);
    }
    rmdir(b->folder);
    kernels_destroy(b->kernels);
    free(b);
}

static loader_options options(bench *b, bool direct) {
    return (loader_options){.kernels = b->kernels,
                            .files = b->files,
                            .file_count = FILES,
                            .items = b->items,
                            .item_count = ITEMS,
                            .direct = direct,
                            .progress = &b->progress,
                            .deadline_ns = clock_now_ns() + 60 * CLOCK_SECOND};
}

// The device memory is what was written, without the gaps: from memory, not by the mapping.
static void check_memory(const bench *b) {
    for (int i = 0; i < ITEMS; i++) {
        const load_item *item = &b->items[i];
        const matrix *m = &b->matrices[i / 2];
        size_t from =
            (size_t)((const char *)item->view.data - (const char *)b->files[m->file].bytes);
        for (int r = 0; r < item->view.rows; r++)
            if (memcmp((char *)item->device + (size_t)r * item_row(item),
                       b->bytes[m->file] + from + (size_t)r * item->view.row_stride,
                       item_row(item)) != 0)
                fail_msg("item %d, row %d differs", i, r);
    }
}

static void load_and_check(bench *b, bool direct) {
    load_report report;
    loader_options o = options(b, direct);
    int64_t expected = 0;
    for (int i = 0; i < ITEMS; i++)
        expected += (int64_t)((size_t)b->items[i].view.rows * item_row(&b->items[i]));
    status s = loader_run(&o, &report);
    assert_string_equal(s.message, "");
    check_memory(b);
    assert_int_equal(report.bytes, expected);
    assert_true(report.read_seconds > 0 && report.read_seconds <= report.seconds);
    assert_true(b->progress.load == 1);
}

// ---- tests

static void test_pieces_cover_every_row_once(void **state) {
    (void)state;
    bench *b = set_up("/tmp");
    const size_t sizes[] = {34 << 10, 70001, 1 << 20, LOADER_PIECE_BYTES};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        load_piece *pieces;
        int count, seen[ITEMS][4096] = {{0}};
        size_t size = sizes[k] < 16 * 8192 ? 16 * 8192 : sizes[k]; // the widest group of rows
        status s = load_pieces_cut(b->files, FILES, b->items, ITEMS, size, &pieces, &count);
        assert_string_equal(s.message, "");
        for (int i = 0; i < count; i++) {
            const load_piece *p = &pieces[i];
            const kernels_weight *w = &b->items[p->item].view;
            assert_true(load_piece_bytes(p) <= size && p->rows >= 1);
            assert_true(p->first_row % KERNELS_STAGE_ROWS == 0);
            assert_true(p->rows % KERNELS_STAGE_ROWS == 0 || p->first_row + p->rows == w->rows);
            assert_ptr_equal((const char *)b->files[p->file].bytes + p->offset,
                             (const char *)w->data + (size_t)p->first_row * w->row_stride);
            for (int r = 0; r < p->rows; r++) seen[p->item][p->first_row + r]++;
            assert_true(i == 0 || p->file > pieces[i - 1].file ||
                        p->offset >= pieces[i - 1].offset);
        }
        for (int i = 0; i < ITEMS; i++)
            for (int r = 0; r < b->items[i].view.rows; r++) assert_int_equal(seen[i][r], 1);
        free(pieces);
    }
    load_piece *none;
    int count;
    status s = load_pieces_cut(b->files, FILES, b->items, ITEMS, 100, &none, &count);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    s = load_pieces_cut(b->files, 1, b->items, ITEMS, 1 << 20, &none, &count);
    assert_int_equal(s.code, STATUS_INTERNAL);
    tear_down(b);
}

static void test_bytes_arrive(void **state) {
    (void)state;
    const char *const folders[] = {"/tmp", "/dev/shm"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (access(folders[i], W_OK) != 0) continue;
        for (int direct = 0; direct < 2; direct++) {
            bench *b = set_up(folders[i]);
            take_memory(b);
            load_and_check(b, direct);
            assert_true(direct || atomic_load(&direct_reads) == 0);
            tear_down(b);
        }
    }
}

// Far more pieces than slots.
static void test_small_pieces(void **state) {
    (void)state;
    bench *b = set_up("/tmp");
    take_memory(b);
    load_piece *pieces;
    int count;
    status s = load_pieces_cut(b->files, FILES, b->items, ITEMS, 16 * 8192, &pieces, &count);
    assert_string_equal(s.message, "");
    assert_true(count > 3 * LOADER_SLOTS);
    loader_options o = options(b, true);
    o.pieces = pieces;
    o.piece_count = count;
    load_report report;
    s = loader_run(&o, &report);
    assert_string_equal(s.message, "");
    check_memory(b);
    free(pieces);
    tear_down(b);
}

// Evicts the files from the page cache, so that direct reads have something to do.
static void evict(const bench *b) {
    for (int f = 0; f < FILES; f++) {
        int fd = open(b->path[f], O_RDONLY);
        fsync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

static void test_direct_reads_and_their_refusal(void **state) {
    (void)state;
    const trouble troubles[] = {NONE, REFUSES_DIRECT, SHORT_READS};
    for (size_t i = 0; i < sizeof troubles / sizeof troubles[0]; i++) {
        bench *b = set_up("/tmp");
        take_memory(b);
        evict(b);
        atomic_store(&disk, troubles[i]);
        load_and_check(b, true);
        print_message("%d direct reads\n", atomic_load(&direct_reads));
        tear_down(b);
    }
}

// Runs into any memory: short ones by the page cache, long ones past it; in any trouble the file's.
static void test_copies_of_runs(void **state) {
    (void)state;
    const trouble troubles[] = {NONE, REFUSES_DIRECT, SHORT_READS};
    const size_t sizes[] = {1, 4096, (1 << 20) - 1, 1 << 20, (3 << 20) + 5};
    for (size_t i = 0; i < sizeof troubles / sizeof troubles[0]; i++) {
        bench *b = set_up("/tmp");
        load_file f;
        char *out = malloc((4 << 20) + 1);
        evict(b);
        assert_string_equal(load_file_open(&b->files[1], true, &f).message, "");
        atomic_store(&disk, troubles[i]);
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            out[sizes[k]] = 77;
            assert_string_equal(load_file_copy(&f, 333, out, sizes[k]).message, "");
            assert_memory_equal(out, b->bytes[1] + 333, sizes[k]);
            assert_int_equal(out[sizes[k]], 77);
        }
        atomic_store(&disk, NONE);
        print_message("%lld bytes by direct I/O\n", (long long)atomic_load(&f.direct_bytes));
        if (troubles[i] == REFUSES_DIRECT) assert_int_equal(atomic_load(&f.direct_bytes), 0);
        assert_int_equal(load_file_copy(&f, 333, out, 4 << 20).code,
                         b->files[1].size < 333 + (4 << 20) ? STATUS_DATA_LOSS : STATUS_OK);
        load_file_close(&f);
        free(out);
        tear_down(b);
    }
}

static status run_with_trouble(bench *b, trouble t, int64_t seconds) {
    load_report report;
    loader_options o = options(b, true);
    o.deadline_ns = clock_now_ns() + seconds * CLOCK_SECOND;
    atomic_store(&disk, t);
    status s = loader_run(&o, &report);
    atomic_store(&disk, NONE);
    return s;
}

static void test_a_failing_disk_is_named(void **state) {
    (void)state;
    bench *b = set_up("/tmp");
    take_memory(b);
    status s = run_with_trouble(b, FAILS, 30);
    print_message("%s\n", s.message);
    assert_int_equal(s.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(s.message, b->folder));
    assert_non_null(strstr(s.message, "matrix of layer"));
    assert_non_null(strstr(s.message, "at byte "));
    assert_non_null(strstr(s.message, "(errno 5)"));
    tear_down(b);
}

static void test_files_that_shrink(void **state) {
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        for (int direct = 0; direct < 2; direct++) {
            bench *b = set_up("/tmp");
            if (on_device) take_memory(b);
            loader_options o = options(b, direct);
            load_report report;
            assert_int_equal(truncate(b->path[1], 300000), 0); // seen when it is opened
            status s = loader_run(&o, &report);
            assert_int_equal(s.code, STATUS_DATA_LOSS);
            assert_non_null(strstr(s.message, "part-1 changed while it was in use"));
            assert_int_equal(stat(b->path[1], &b->files[1].seen), 0); // as if it shrank later
            s = loader_run(&o, &report);
            print_message("%s\n", s.message);
            assert_int_equal(s.code, STATUS_DATA_LOSS);
            assert_non_null(strstr(s.message, "matrix of layer"));
            assert_non_null(strstr(s.message, "became shorter"));
            tear_down(b);
        }
    }
}

static void *recover(void *none) {
    clock_sleep_until(clock_now_ns() + CLOCK_SECOND);
    atomic_store(&disk, NONE);
    return none;
}

// The readers end with the disk's recovery; the loader had given up before.
static void test_a_hanging_disk_ends_at_the_deadline(void **state) {
    (void)state;
    bench *b = set_up("/tmp");
    take_memory(b);
    load_report report;
    loader_options o = options(b, false);
    o.deadline_ns = clock_now_ns() + CLOCK_SECOND / 5;
    atomic_store(&disk, HANGS);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, recover, NULL), 0);
    status s = loader_run(&o, &report);
    assert_int_equal(s.code, STATUS_DEADLINE_EXCEEDED);
    assert_non_null(strstr(s.message, "nothing was read"));
    assert_int_equal(pthread_join(thread, NULL), 0);
    tear_down(b);
}

static void test_pages_are_read_in(void **state) {
    (void)state;
    bench *b = set_up("/tmp");
    evict(b);
    load_report report;
    loader_options o = options(b, false);
    status s = loader_run(&o, &report);
    assert_string_equal(s.message, "");
    assert_true(b->progress.load == 1);
    char text[256];
    print_message("%s\n", load_report_text(&report, text, sizeof text));
    tear_down(b);
}

static void test_plain_pieces_and_their_sums(void **state) {
    (void)state;
    bench *b = set_up("/tmp");
    take_memory(b);
    enum { SIZE = 100000, FROM = 1291 };
    load_piece p = {.file = 0,
                    .offset = FROM,
                    .row_bytes = SIZE,
                    .row_stride = SIZE,
                    .item = 0,
                    .rows = 1,
                    .plain = true,
                    .at = 64,
                    .checksum = loader_checksum(b->bytes[0] + FROM, SIZE)};
    loader_options o = options(b, true);
    o.pieces = &p;
    o.piece_count = 1;
    load_report report;
    status s = loader_run(&o, &report);
    assert_string_equal(s.message, "");
    assert_memory_equal((char *)b->items[0].device + 64, b->bytes[0] + FROM, SIZE);
    p.checksum ^= 1;
    s = loader_run(&o, &report);
    assert_int_equal(s.code, STATUS_DATA_LOSS);
    assert_non_null(strstr(s.message, "damaged"));
    tear_down(b);
}

static void test_words_of_a_report(void **state) {
    (void)state;
    char text[256];
    load_report r = {.bytes = (int64_t)2 << 30,
                     .direct_bytes = 1 << 30,
                     .seconds = 4,
                     .read_seconds = 2,
                     .copied_bytes = 1 << 30,
                     .copy_seconds = 0.5,
                     .made = 3};
    assert_string_equal(load_report_text(&r, text, sizeof text),
                        "2048.0 MiB in 4.000 s, 0.50 GiB/s; reading alone 1.00 GiB/s (50 % by "
                        "direct I/O), copying alone 2.00 GiB/s; 3 matrices made from packed "
                        "integers or cut blocks");
    assert_string_equal(load_report_text(&r, text, 20), "2048.0 MiB in 4.000");
}

static void test_checksum_sees_every_bit(void **state) {
    (void)state;
    char bytes[77];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 31);
    uint64_t sum = loader_checksum(bytes, sizeof bytes);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        assert_true(loader_checksum(bytes, sizeof bytes) != sum);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(loader_checksum(bytes, sizeof bytes - 1) != sum);
    assert_true(loader_checksum(bytes, sizeof bytes) == sum);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_cover_every_row_once),
        cmocka_unit_test(test_bytes_arrive),
        cmocka_unit_test(test_small_pieces),
        cmocka_unit_test(test_direct_reads_and_their_refusal),
        cmocka_unit_test(test_copies_of_runs),
        cmocka_unit_test(test_a_failing_disk_is_named),
        cmocka_unit_test(test_files_that_shrink),
        cmocka_unit_test(test_a_hanging_disk_ends_at_the_deadline),
        cmocka_unit_test(test_pages_are_read_in),
        cmocka_unit_test(test_plain_pieces_and_their_sums),
        cmocka_unit_test(test_words_of_a_report),
        cmocka_unit_test(test_checksum_sees_every_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
