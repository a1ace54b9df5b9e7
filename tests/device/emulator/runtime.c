// The stand-in for the CUDA runtime: what a program may rely on, and that mistakes show which a
// card would let pass.
#include <cuda_runtime_api.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/device/probe/ptx_probe.h"
#include "tests/device/shim/emulator.h"

#define OK(call) assert_int_equal((call), cudaSuccess)
#define FAILS(call, error) assert_int_equal((call), (error))

enum { COUNT = 256, BYTES = COUNT * 4 };

typedef struct things {
    cudaStream_t stream, other;
    uint32_t *device, *second, *pinned;
} things;

static int set_up(void **state) {
    things *t = calloc(1, sizeof *t);
    assert_true(emulator_configure("devices=h100,streams=deferred"));
    OK(cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&t->other, cudaStreamNonBlocking));
    OK(cudaMalloc((void **)&t->device, BYTES));
    OK(cudaMalloc((void **)&t->second, BYTES));
    OK(cudaHostAlloc((void **)&t->pinned, BYTES, cudaHostAllocDefault));
    *state = t;
    return 0;
}

static int tear_down(void **state) {
    things *t = *state;
    OK(cudaFree(t->device));
    OK(cudaFree(t->second));
    OK(cudaFreeHost(t->pinned));
    OK(cudaStreamDestroy(t->stream));
    OK(cudaStreamDestroy(t->other));
    (void)cudaGetLastError();
    free(t);
    return 0;
}

static void fill(uint32_t *p, uint32_t first) {
    for (uint32_t i = 0; i < COUNT; i++) p[i] = first + i;
}

static uint32_t first_of(const uint32_t *device) {
    uint32_t v;
    OK(cudaMemcpy(&v, device, sizeof v, cudaMemcpyDeviceToHost));
    return v;
}

static void fresh_memory_is_nan(void **state) {
    things *t = *state;
    assert_int_equal(first_of(t->device), 0xffffffff);
}

static void deferred_work_waits(void **state) {
    things *t = *state;
    uint32_t plain[COUNT];
    fill(plain, 100);
    OK(cudaMemcpyAsync(t->device, plain, BYTES, cudaMemcpyHostToDevice, t->stream));
    fill(plain, 900); // pageable: was read already
    fill(t->pinned, 7);
    OK(cudaMemcpyAsync(t->pinned, t->device, BYTES, cudaMemcpyDeviceToHost, t->stream));
    assert_int_equal(t->pinned[0], 0xffffffff); // neither old nor new before the wait
    FAILS(cudaStreamQuery(t->stream), cudaErrorNotReady);
    OK(cudaStreamSynchronize(t->stream));
    assert_int_equal(t->pinned[5], 105);
    OK(cudaStreamQuery(t->stream));
}

static void a_pinned_source_used_again_too_early_shows(void **state) {
    things *t = *state;
    fill(t->pinned, 1);
    OK(cudaMemcpyAsync(t->device, t->pinned, BYTES, cudaMemcpyHostToDevice, t->stream));
    fill(t->pinned, 50); // the mistake
    OK(cudaStreamSynchronize(t->stream));
    assert_int_equal(first_of(t->device), 50);
}

static void asking_goes_on_to_an_end(void **state) {
    things *t = *state;
    cudaEvent_t event;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(cudaEventQuery(event)); // never recorded
    for (int i = 0; i < 3; i++) OK(cudaMemsetAsync(t->device, i, BYTES, t->stream));
    OK(cudaEventRecord(event, t->stream));
    int asked = 0;
    while (cudaEventQuery(event) == cudaErrorNotReady) assert_true(++asked < 10);
    assert_true(asked > 0);
    assert_int_equal(first_of(t->device), 0x02020202);
    OK(cudaEventDestroy(event));
}

static void streams_wait_for_events(void **state) {
    things *t = *state;
    cudaEvent_t event;
    OK(cudaEventCreate(&event));
    OK(cudaMemsetAsync(t->device, 1, BYTES, t->stream));
    OK(cudaEventRecord(event, t->stream));
    OK(cudaMemsetAsync(t->device, 2, BYTES, t->stream)); // after the event: not waited for
    OK(cudaStreamWaitEvent(t->other, event, 0));
    OK(cudaMemcpyAsync(t->second, t->device, BYTES, cudaMemcpyDeviceToDevice, t->other));
    OK(cudaStreamSynchronize(t->other));
    uint32_t seen;
    OK(cudaMemcpyAsync(t->pinned, t->second, BYTES, cudaMemcpyDeviceToHost, t->other));
    OK(cudaStreamSynchronize(t->other));
    memcpy(&seen, t->pinned, sizeof seen);
    assert_int_equal(seen, 0x01010101);
    float ms;
    FAILS(cudaEventElapsedTime(&ms, event, NULL), cudaErrorInvalidResourceHandle);
    OK(cudaEventElapsedTime(&ms, event, event));
    OK(cudaEventDestroy(event));
}

static void the_legacy_stream_waits_for_blocking_ones(void **state) {
    things *t = *state;
    cudaStream_t blocking;
    OK(cudaStreamCreate(&blocking));
    OK(cudaMemsetAsync(t->device, 3, BYTES, blocking));
    OK(cudaMemsetAsync(t->device, 4, BYTES, t->stream)); // non-blocking: does not matter
    assert_int_equal(first_of(t->device), 0x03030303);
    OK(cudaStreamDestroy(blocking));
}

static void background_work_gets_on_by_itself(void **state) {
    things *t = *state;
    assert_true(emulator_configure("streams=background"));
    OK(cudaMemsetAsync(t->device, 9, BYTES, t->stream));
    OK(cudaMemcpyAsync(t->pinned, t->device, BYTES, cudaMemcpyDeviceToHost, t->stream));
    for (int i = 0; i < 5000 && *(volatile uint32_t *)t->pinned != 0x09090909; i++) usleep(1000);
    assert_int_equal(t->pinned[0], 0x09090909);
    assert_true(emulator_configure("streams=deferred"));
}

static void copies_are_checked(void **state) {
    things *t = *state;
    uint32_t plain[COUNT + 1] = {0};
    FAILS(cudaMemcpy(t->device, plain, BYTES + 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(plain, t->device, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemset(plain, 0, 4), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    fill(plain, 0);
    OK(cudaMemcpy2DAsync(t->device, 64, plain, 16, 16, 4, cudaMemcpyHostToDevice, t->stream));
    OK(cudaStreamSynchronize(t->stream));
    assert_int_equal(first_of(t->device + 16), 4); // second row
    assert_int_equal(first_of(t->device + 4), 0xffffffff);
}

static void graphs_replay_what_was_captured(void **state) {
    things *t = *state;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t nodes;
    OK(cudaMemset(t->device, 0, BYTES));
    OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal));
    OK(cudaMemcpyAsync(t->second, t->device, BYTES, cudaMemcpyDeviceToDevice, t->stream));
    OK(ptx_probe_loads(t->stream, t->second, t->device));
    OK(cudaStreamEndCapture(t->stream, &graph));
    OK(cudaGraphGetNodes(graph, NULL, &nodes));
    assert_int_equal(nodes, 2);
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    assert_int_equal(first_of(t->second), 0xffffffff); // nothing ran
    for (uint32_t i = 1; i < 3; i++) {
        fill(t->pinned, i * 10);
        OK(cudaMemcpyAsync(t->device, t->pinned, BYTES, cudaMemcpyHostToDevice, t->stream));
        OK(cudaGraphLaunch(exec, t->stream));
        OK(cudaStreamSynchronize(t->stream));
        assert_int_equal(first_of(t->second), i * 10);
    }
    OK(cudaGraphExecDestroy(exec));
}

static void captures_refuse_what_cuda_refuses(void **state) {
    things *t = *state;
    cudaGraph_t graph;
    void *p;
    uint32_t plain = 0;
    OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeGlobal));
    FAILS(cudaMalloc(&p, 16), cudaErrorStreamCaptureUnsupported);
    FAILS(cudaMemsetAsync(t->device, 0, 4, t->stream), cudaErrorStreamCaptureInvalidated);
    FAILS(cudaStreamEndCapture(t->stream, &graph), cudaErrorStreamCaptureInvalidated);
    assert_null(graph);
    OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeGlobal));
    FAILS(cudaStreamSynchronize(t->stream), cudaErrorStreamCaptureUnsupported);
    FAILS(cudaStreamEndCapture(t->stream, &graph), cudaErrorStreamCaptureInvalidated);
    OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeGlobal));
    FAILS(cudaMemcpyAsync(t->device, &plain, 4, cudaMemcpyHostToDevice, t->stream),
          cudaErrorStreamCaptureUnsupported);
    FAILS(cudaStreamEndCapture(t->stream, &graph), cudaErrorStreamCaptureInvalidated);
    OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeRelaxed));
    OK(cudaMalloc(&p, 16));
    OK(cudaFree(p));
    OK(cudaStreamEndCapture(t->stream, &graph));
    OK(cudaGraphDestroy(graph));
    FAILS(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal),
          cudaErrorStreamCaptureUnsupported);
}

static void captures_fork_and_join(void **state) {
    things *t = *state;
    cudaGraph_t graph;
    cudaEvent_t fork, join;
    OK(cudaEventCreate(&fork));
    OK(cudaEventCreate(&join));
    for (int joined = 0; joined < 2; joined++) {
        OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal));
        OK(cudaEventRecord(fork, t->stream));
        OK(cudaStreamWaitEvent(t->other, fork, 0));
        OK(cudaMemsetAsync(t->device, 1, 4, t->other));
        FAILS(cudaEventQuery(fork), cudaErrorCapturedEvent);
        FAILS(cudaStreamEndCapture(t->stream, &graph), cudaErrorStreamCaptureInvalidated);
        OK(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal));
        OK(cudaEventRecord(fork, t->stream));
        OK(cudaStreamWaitEvent(t->other, fork, 0));
        OK(cudaMemsetAsync(t->device, 1, 4, t->other));
        if (joined) {
            OK(cudaEventRecord(join, t->other));
            OK(cudaStreamWaitEvent(t->stream, join, 0));
        }
        FAILS(cudaStreamEndCapture(t->stream, &graph),
              joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    }
    OK(cudaGraphDestroy(graph));
    OK(cudaEventDestroy(fork));
    OK(cudaEventDestroy(join));
}

static void errors_can_be_planted(void **state) {
    things *t = *state;
    void *p;
    emulator_fail("cudaMalloc", 1, cudaErrorMemoryAllocation, false);
    OK(cudaMalloc(&p, 16));
    OK(cudaFree(p));
    FAILS(cudaMalloc(&p, 16), cudaErrorMemoryAllocation);
    OK(cudaMalloc(&p, 16));
    OK(cudaFree(p));
    FAILS(cudaMalloc(&p, (size_t)1 << 40), cudaErrorMemoryAllocation);
    emulator_fail("kernel", 0, cudaErrorIllegalAddress, false);
    OK(ptx_probe_loads(t->stream, t->second, t->device)); // told later
    FAILS(cudaStreamSynchronize(t->stream), cudaErrorIllegalAddress);
    FAILS(cudaMalloc(&p, 16), cudaErrorIllegalAddress); // from now on by all
    assert_string_equal(cudaGetErrorName(cudaPeekAtLastError()), "cudaErrorIllegalAddress");
    OK(cudaDeviceReset());
    (void)cudaGetLastError();
    OK(cudaStreamSynchronize(t->stream));
}

static void cards_differ(void **state) {
    things *t = *state;
    int count, value, blocks;
    assert_true(emulator_set_devices("a100*2+h100"));
    OK(cudaGetDeviceCount(&count));
    assert_int_equal(count, 3);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 1));
    assert_int_equal(value, 8);
    FAILS(cudaSetDevice(3), cudaErrorInvalidDevice);
    FAILS(cudaFuncSetAttribute(NULL, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10),
          cudaErrorInvalidValue); // an A100 has 163 KiB
    OK(cudaSetDevice(2));
    OK(cudaFuncSetAttribute(NULL, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, NULL, 512, 100 << 10));
    assert_int_equal(blocks, 2);
    OK(cudaSetDevice(0));
    assert_true(emulator_set_devices("t4"));
    FAILS(ptx_probe_loads(t->stream, t->second, t->device), cudaErrorNoKernelImageForDevice);
    assert_true(emulator_set_devices("none"));
    FAILS(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    assert_true(emulator_set_devices("old-driver"));
    FAILS(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    assert_false(emulator_set_devices("h1000"));
    assert_true(emulator_set_devices("h100"));
}

// A rank of its own: shares its memory with the parent.
static void be_a_peer(int to_parent, int from_parent) {
    uint32_t *p, word = 0;
    cudaIpcMemHandle_t handle;
    char go;
    if (cudaMalloc((void **)&p, BYTES) || cudaMemset(p, 0x11, BYTES) ||
        cudaIpcGetMemHandle(&handle, p) ||
        write(to_parent, &handle, sizeof handle) != (ssize_t)sizeof handle ||
        read(from_parent, &go, 1) != 1 || cudaMemcpy(&word, p, 4, cudaMemcpyDeviceToHost))
        _exit(1);
    _exit(word == 0x22222222 ? 0 : 2);
}

static void processes_see_each_others_memory(void) {
    int down[2], up[2], status = 0;
    assert_int_equal(pipe(down) | pipe(up), 0);
    pid_t child = fork(); // before this process's first call
    if (child == 0) be_a_peer(up[1], down[0]);
    cudaIpcMemHandle_t handle, own;
    void *theirs, *again, *mine;
    assert_int_equal(read(up[0], &handle, sizeof handle), sizeof handle);
    OK(cudaIpcOpenMemHandle(&theirs, handle, cudaIpcMemLazyEnablePeerAccess));
    OK(cudaIpcOpenMemHandle(&again, handle, cudaIpcMemLazyEnablePeerAccess));
    assert_ptr_equal(theirs, again);
    assert_int_equal(first_of(theirs), 0x11111111);
    FAILS(cudaMemset(theirs, 0, BYTES + 1), cudaErrorInvalidValue);
    OK(cudaMemset(theirs, 0x22, BYTES));
    assert_int_equal(write(down[1], "g", 1), 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    OK(cudaIpcCloseMemHandle(theirs));
    OK(cudaIpcCloseMemHandle(theirs));
    FAILS(cudaIpcCloseMemHandle(theirs), cudaErrorInvalidValue);
    OK(cudaMalloc(&mine, 16));
    OK(cudaIpcGetMemHandle(&own, mine));
    FAILS(cudaIpcOpenMemHandle(&again, own, 0), cudaErrorDeviceUninitialized); // one's own
    OK(cudaFree(mine));
}

static void a_fork_may_not_go_on(void **state) {
    things *t = *state;
    int status = 0;
    pid_t child = fork();
    if (child == 0) _exit(cudaMemset(t->device, 0, 4) == cudaErrorInitializationError ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    processes_see_each_others_memory();
    const struct CMUnitTest tests[] = {
        TEST(fresh_memory_is_nan),
        TEST(deferred_work_waits),
        TEST(a_pinned_source_used_again_too_early_shows),
        TEST(asking_goes_on_to_an_end),
        TEST(streams_wait_for_events),
        TEST(the_legacy_stream_waits_for_blocking_ones),
        TEST(background_work_gets_on_by_itself),
        TEST(copies_are_checked),
        TEST(graphs_replay_what_was_captured),
        TEST(captures_refuse_what_cuda_refuses),
        TEST(captures_fork_and_join),
        TEST(errors_can_be_planted),
        TEST(cards_differ),
        TEST(a_fork_may_not_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
