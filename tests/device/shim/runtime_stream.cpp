// Streams and events. Operations carry one ascending number over all streams; an operation of the
// legacy stream waits for those before it in every blocking stream, and the other way round, and a
// wait for an event waits for its recording. All that an operation waits for has a smaller number,
// so running in the order of need cannot go in circles.
#include "tests/device/shim/runtime.h"

#include "tests/device/shim/simt.h"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <set>
#include <thread>

using runtime::operation;

struct queued {
    uint64_t sequence;
    operation run;
    std::shared_ptr<runtime::recording> after; // an event that this stream waits for here
};

struct CUstream_st {
    bool blocking; // waits for the legacy stream
    int priority;
    std::deque<queued> waiting;
    uint64_t running; // 0: nothing
    runtime::capture *captured;
};

struct CUevent_st {
    bool timed;
    bool recorded_in_capture;
    runtime::capture_mark mark;
    std::shared_ptr<runtime::recording> last; // null: never recorded
};

namespace runtime {

namespace {

enum { PRIORITY_LEAST = 0, PRIORITY_GREATEST = -5 };

class engine {
  public:
    engine() { streams_.insert(&legacy_); }
    ~engine() { set_timing(timing::IMMEDIATE); }

    stream *find(cudaStream_t s) {
        if (!s || s == cudaStreamLegacy) return &legacy_;
        std::lock_guard<std::mutex> lock(mutex_);
        return streams_.count(s) ? s : nullptr;
    }

    stream *create(bool blocking, int priority) {
        std::lock_guard<std::mutex> lock(mutex_);
        stream *s = new CUstream_st{blocking, priority, {}, 0, nullptr};
        streams_.insert(s);
        return s;
    }

    void destroy(stream *s) {
        finish(s, newest());
        std::lock_guard<std::mutex> lock(mutex_);
        streams_.erase(s);
        delete s;
    }

    uint64_t submit(stream *s, operation run, std::shared_ptr<recording> after) {
        uint64_t n;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            n = ++sequence_;
            s->waiting.push_back({n, std::move(run), std::move(after)});
        }
        changed_.notify_all();
        if (timing_ == timing::IMMEDIATE) finish(s, n);
        return n;
    }

    void finish(stream *s, uint64_t upto) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (timing_ != timing::BACKGROUND || std::this_thread::get_id() == worker_.get_id()) {
            advance(lock, s, upto);
            return;
        }
        while (!done(s, upto)) changed_.wait(lock);
    }

    // Whether all up to there is done. A deferred stream takes one step for each question, so that
    // asking goes on to an end.
    bool poll(stream *s, uint64_t upto) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (done(s, upto)) return true;
        if (timing_ == timing::DEFERRED && !s->waiting.empty())
            advance(lock, s, s->waiting.front().sequence);
        return false;
    }

    void finish_all() {
        std::set<stream *> all;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            all = streams_;
        }
        for (stream *s : all) finish(s, newest());
    }

    uint64_t newest() {
        std::lock_guard<std::mutex> lock(mutex_);
        return sequence_;
    }

    void work_so_far(uint64_t *queued, uint64_t *done) {
        std::lock_guard<std::mutex> lock(mutex_);
        *queued = sequence_;
        *done = done_;
    }

    timing how() const { return timing_; }

    void set_timing(timing t) {
        finish_all();
        if (timing_ == timing::BACKGROUND && t != timing::BACKGROUND) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
                timing_ = t;
            }
            changed_.notify_all();
            worker_.join();
        }
        bool start = t == timing::BACKGROUND && timing_ != t;
        timing_ = t;
        if (start) worker_ = std::thread([this] { work(); });
    }

  private:
    static bool done(const stream *s, uint64_t upto) {
        return (!s->running || s->running > upto) &&
               (s->waiting.empty() || s->waiting.front().sequence > upto);
    }

    // Carries out what `s` holds up to there, and first what that waits for.
    void advance(std::unique_lock<std::mutex> &lock, stream *s, uint64_t upto) {
        for (;;) {
            while (s->running && s->running <= upto) changed_.wait(lock);
            if (s->running || s->waiting.empty() || s->waiting.front().sequence > upto) return;
            queued q = std::move(s->waiting.front());
            s->waiting.pop_front();
            s->running = q.sequence;
            advance_needed(lock, s, q);
            lock.unlock();
            if (q.run) {
                memory_open();
                q.run();
                memory_close();
            }
            lock.lock();
            s->running = 0;
            done_++;
            changed_.notify_all();
        }
    }

    void advance_needed(std::unique_lock<std::mutex> &lock, stream *s, const queued &q) {
        if (q.after && !q.after->done) advance(lock, q.after->in, q.after->sequence);
        if (s == &legacy_) {
            std::set<stream *> all = streams_;
            for (stream *other : all)
                if (other != s && other->blocking) advance(lock, other, q.sequence - 1);
        } else if (s->blocking) {
            advance(lock, &legacy_, q.sequence - 1);
        }
    }

    void work() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (timing_ == timing::BACKGROUND) {
            stream *next = nullptr;
            for (stream *s : streams_)
                if (!s->waiting.empty() &&
                    (!next || s->waiting.front().sequence < next->waiting.front().sequence))
                    next = s;
            if (next)
                advance(lock, next, next->waiting.front().sequence);
            else
                changed_.wait(lock);
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    CUstream_st legacy_{true, 0, {}, 0, nullptr};
    std::set<stream *> streams_;
    uint64_t sequence_ = 0, done_ = 0;
    timing timing_ = timing::IMMEDIATE;
    std::thread worker_;
};

engine &the_engine() {
    static engine e;
    return e;
}

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

} // namespace

stream *stream_find(cudaStream_t s) {
    return the_engine().find(s);
}
timing stream_timing() {
    return the_engine().how();
}
void stream_set_timing(timing t) {
    the_engine().set_timing(t);
}
capture *capture_of(stream *s) {
    return s->captured;
}
void capture_set(stream *s, capture *c) {
    s->captured = c;
}
bool stream_is_legacy(stream *s) {
    return s == the_engine().find(nullptr);
}
bool stream_is_blocking(stream *s) {
    return s->blocking;
}

cudaError_t submit(cudaStream_t handle, operation run) {
    stream *s = stream_find(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s->captured) return capture_append(s->captured, s, std::move(run));
    if (stream_is_legacy(s) && capture_hit_by_legacy_stream())
        return cudaErrorStreamCaptureImplicit;
    the_engine().submit(s, std::move(run), nullptr);
    return cudaSuccess;
}

bool is_capturing(cudaStream_t handle) {
    stream *s = stream_find(handle);
    return s && s->captured;
}

void finish(cudaStream_t s) {
    the_engine().finish(stream_find(s), the_engine().newest());
}
void finish_all() {
    the_engine().finish_all();
}

} // namespace runtime

using namespace runtime;

void emulator_set_streams(emulator_streams when) {
    stream_set_timing(when == EMULATOR_STREAMS_DEFERRED     ? timing::DEFERRED
                      : when == EMULATOR_STREAMS_BACKGROUND ? timing::BACKGROUND
                                                            : timing::IMMEDIATE);
}

void emulator_stream_work(uint64_t *queued, uint64_t *done) {
    the_engine().work_so_far(queued, done);
}

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) {
    if (cudaError_t e = enter(__func__)) return e;
    if (flags > cudaStreamNonBlocking) return fail(cudaErrorInvalidValue);
    if (priority > PRIORITY_LEAST) priority = PRIORITY_LEAST;
    if (priority < PRIORITY_GREATEST) priority = PRIORITY_GREATEST;
    *out = the_engine().create(flags != cudaStreamNonBlocking, priority);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    return cudaStreamCreateWithPriority(out, flags, PRIORITY_LEAST);
}

cudaError_t cudaStreamCreate(cudaStream_t *out) {
    return cudaStreamCreateWithPriority(out, cudaStreamDefault, PRIORITY_LEAST);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (cudaError_t e = enter(__func__)) return e;
    *least = PRIORITY_LEAST;
    *greatest = PRIORITY_GREATEST;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    stream *s = handle ? stream_find(handle) : nullptr;
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (s->captured) return fail(cudaErrorStreamCaptureUnsupported);
    the_engine().destroy(s);
    return lasting_error();
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (s->captured || (stream_is_legacy(s) && capture_hit())) {
        capture_hit();
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    the_engine().finish(s, the_engine().newest());
    if (stream_is_legacy(s)) simt::race_synchronized(); // it waits for all others
    return fail(lasting_error());
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (s->captured) {
        capture_hit();
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    if (!the_engine().poll(s, the_engine().newest())) return cudaErrorNotReady;
    return fail(lasting_error());
}

cudaError_t cudaDeviceSynchronize(void) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    the_engine().finish_all();
    simt::race_synchronized();
    return fail(lasting_error());
}

cudaError_t cudaDeviceReset(void) {
    the_engine().finish_all();
    clear_lasting_error();
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t function, void *argument) {
    if (cudaError_t e = enter(__func__)) return e;
    return fail(submit(s, [=] { function(argument); }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    if (cudaError_t e = enter(__func__)) return e;
    *out = new CUevent_st{!(flags & cudaEventDisableTiming), false, {}, nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out) {
    return cudaEventCreateWithFlags(out, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (!event) return fail(cudaErrorInvalidResourceHandle);
    delete event; // a recording under way lives on by itself
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!event || !s) return fail(cudaErrorInvalidResourceHandle);
    event->recorded_in_capture = s->captured != nullptr;
    if (s->captured) {
        event->mark = capture_record(s);
        return cudaSuccess;
    }
    if (stream_is_legacy(s) && capture_hit_by_legacy_stream())
        return fail(cudaErrorStreamCaptureImplicit);
    auto r = std::make_shared<recording>(recording{s, 0, false, 0});
    event->last = r;
    uint64_t n = the_engine().newest() +
                 1; // ours, unless another thread comes between: then more is waited for
    r->sequence = n;
    r->sequence = the_engine().submit(
        s,
        [r] {
            r->ns = now_ns();
            r->done = true;
        },
        nullptr);
    return cudaSuccess;
}

static cudaError_t check_event(cudaEvent_t event) {
    if (!event) return cudaErrorInvalidResourceHandle;
    if (event->recorded_in_capture) {
        capture_hit();
        return cudaErrorCapturedEvent;
    }
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (cudaError_t e = enter(__func__)) return e;
    if (cudaError_t e = check_event(event)) return fail(e);
    if (event->last && !event->last->done &&
        !the_engine().poll(event->last->in, event->last->sequence))
        return cudaErrorNotReady;
    return fail(lasting_error());
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (cudaError_t e = enter(__func__)) return e;
    if (cudaError_t e = check_event(event)) return fail(e);
    if (event->last && !event->last->done)
        the_engine().finish(event->last->in, event->last->sequence);
    return fail(lasting_error());
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    if (cudaError_t e = enter(__func__)) return e;
    if (cudaError_t e = check_event(start)) return fail(e);
    if (cudaError_t e = check_event(end)) return fail(e);
    if (!start->timed || !end->timed || !start->last || !end->last)
        return fail(cudaErrorInvalidResourceHandle);
    if (!start->last->done || !end->last->done) return fail(cudaErrorNotReady);
    *ms = (float)(end->last->ns - start->last->ns) * 1e-6f;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!event || !s) return fail(cudaErrorInvalidResourceHandle);
    if (event->recorded_in_capture) return fail(capture_wait(s, event->mark));
    if (s->captured) {
        capture_hit();
        return fail(cudaErrorStreamCaptureIsolation);
    }
    if (event->last) the_engine().submit(s, nullptr, event->last);
    return cudaSuccess;
}
}
