#include "memory/prefetch.h"

#include <stdlib.h>

#include <algorithm>
#include <atomic>

#include "memory/region.h"

namespace pagemesh {
namespace {

constexpr int64_t kMostStride = 64;
constexpr int64_t kMostSkipped = 64;
constexpr uint32_t kLeastRun = 2;  // so often a stride must have repeated; more with caution
constexpr uint32_t kMostCaution = 6;
constexpr uint32_t kUselessPages = 4;  // a window that leaves so many unused makes cautious
constexpr uint32_t kFirstWindow = 4;
constexpr size_t kMostWindowBytes = 1024 * 1024;
constexpr uint32_t kLeastMostWindow = 2;  // where pages are large

// Which streams are this thread's. initial-exec: any other access to a thread's variables may
// allocate. Four bytes, so that they fit what the linker keeps for libraries loaded later.
__attribute__((tls_model("initial-exec"))) thread_local uint32_t thread_number = 0;
std::atomic<uint32_t> thread_count{0};

ThreadStreams* MyStreams(PrefetchTable* table) {
  if (thread_number == 0) thread_number = thread_count.fetch_add(1) + 1;
  return &table->threads[thread_number % PrefetchTable::kThreads];
}

uint32_t MostWindow(const Region* region) {
  const size_t pages = kMostWindowBytes / region->page_bytes();
  return std::max(static_cast<uint32_t>(pages), kLeastMostWindow);
}

// How many pages of the stream are asked for beyond the last one that was read.
int64_t Ahead(const Stream& stream) {
  if (stream.window == 0) return 0;
  return (stream.next - stream.last) / stream.stride - 1;
}

// By how many of its strides the page is ahead of the stream's last one; -1 if it is not the
// stream's, or further ahead than what was asked for. Pages that are here anyway count as read:
// nobody hears of it.
int64_t StepsTo(const Region* region, const Stream& stream, uint32_t page) {
  const int64_t distance = static_cast<int64_t>(page) - stream.last;
  if (distance == 0) return 0;
  if (stream.stride == 0 || distance % stream.stride != 0) return -1;
  const int64_t steps = distance / stream.stride;
  const int64_t asked = Ahead(stream);
  if (steps <= 0 || steps > asked + kMostSkipped) return -1;
  for (int64_t step = asked + 1; step < steps; step++) {
    const uint32_t skipped = static_cast<uint32_t>(stream.last + step * stream.stride);
    if (!Permits(region->state(skipped).load(std::memory_order_relaxed), Access::kRead)) return -1;
  }
  return steps;
}

// The stream is given up: what was asked for and never touched was asked for in vain.
void Drop(Region* region, ThreadStreams* mine, const Stream& stream) {
  uint32_t useless = 0;
  for (int64_t left = Ahead(stream), page = stream.last + stream.stride; left > 0;
       left--, page += stream.stride) {
    const uint32_t asked = static_cast<uint32_t>(page);
    if (asked >= region->page_count() || region->HomeOf(asked) == region->options().rank) continue;
    useless += region->IsLowered(asked);
  }
  useless = std::min(useless, stream.asked);  // some may have been on their way for others
  if (useless == 0) return;
  region->stats().prefetches_useless.fetch_add(useless, std::memory_order_relaxed);
  if (useless >= kUselessPages) mine->caution = std::min(mine->caution + 1, kMostCaution);
}

// The page begins a stream, whose stride is a guess from the nearest page that was read before.
Stream* Begin(Region* region, ThreadStreams* mine, uint32_t page) {
  int64_t stride = 0;
  Stream* oldest = &mine->streams[0];
  Stream* before = nullptr;
  for (Stream& stream : mine->streams) {
    if (stream.used_at < oldest->used_at) oldest = &stream;
    if (stream.used_at == 0) continue;
    const int64_t distance = static_cast<int64_t>(page) - stream.last;
    if (llabs(distance) > kMostStride || (stride != 0 && llabs(distance) >= llabs(stride))) {
      continue;
    }
    stride = distance;
    before = &stream;
  }
  // One that has led nowhere yet goes on with the new stride; another one stays what it is.
  Stream* stream = before != nullptr && before->run <= 1 ? before : oldest;
  if (stream->window > 0) Drop(region, mine, *stream);
  *stream = {};
  stream->last = page;
  stream->stride = static_cast<int32_t>(stride);
  stream->run = stride != 0 ? 1 : 0;
  return stream;
}

// Notes that the page is read. Returns the stream that it goes on, or nullptr.
Stream* Note(Region* region, ThreadStreams* mine, uint32_t page) {
  for (Stream& stream : mine->streams) {
    if (stream.used_at == 0) continue;
    const int64_t steps = StepsTo(region, stream, page);
    if (steps < 0) continue;
    const bool passed = steps > Ahead(stream);
    stream.used_at = ++mine->clock;
    stream.last = page;
    if (passed) stream.next = static_cast<int64_t>(page) + stream.stride;
    if (steps > 0) stream.run++;
    return steps > 0 ? &stream : nullptr;
  }
  Begin(region, mine, page)->used_at = ++mine->clock;
  return nullptr;
}

// Whether it is time to ask for more of the stream; if so the window is what it should be now.
bool Grow(const Region* region, ThreadStreams* mine, Stream* stream) {
  if (stream->window == 0) {
    if (stream->run < kLeastRun + mine->caution) return false;
    stream->window = std::min(kFirstWindow, MostWindow(region));
    return true;
  }
  if (Ahead(*stream) > stream->window / 2) return false;
  const uint32_t window = std::min(stream->window * 2, MostWindow(region));
  if (window > stream->window && mine->caution > 0) mine->caution--;  // it was of use
  stream->window = window;
  return true;
}

// Takes the page to state reading, if it is in none: from then on its data is let in.
bool TakeReading(Region* region, uint32_t page) {
  if (region->HomeOf(page) == region->options().rank) return false;
  uint8_t expected = kStateNone;
  return region->state(page).compare_exchange_strong(expected, kStateReading | kPageDirect);
}

// The request was not sent. Whoever has met the page in state reading meanwhile must look again; if
// the engine has, somebody relies on the answer, and the engine sends it.
void TakeBack(FaultSink* sink, Region* region, uint32_t page) {
  uint8_t expected = kStateReading | kPageDirect;
  if (region->state(page).compare_exchange_strong(expected, kStateNone)) {
    WakeWaiters(region, page, 1);
  } else {
    PushUnsentAhead(sink, region, page);
  }
}

// Sends the requests for the first `count` of `mine->pages`, all of one home in one call. The first
// one is the thread's `own`, or like the others. Returns whether all were sent; `*own_sent` says it
// of the own one, which its caller sees to, and `*asked` counts the others.
bool SendPages(FaultSink* sink, Region* region, ThreadStreams* mine, uint32_t count, bool own,
               bool* own_sent, uint32_t* asked) {
  uint32_t* const end = mine->pages + count;
  uint32_t ahead = 0;
  bool all = true;
  for (uint32_t* first = mine->pages; first != end;) {
    const uint32_t home = region->HomeOf(*first);
    uint32_t* last = first + 1;
    for (uint32_t* other = last; other != end; other++) {
      if (region->HomeOf(*other) == home) std::rotate(last++, other, other + 1);
    }
    const uint32_t here = static_cast<uint32_t>(last - first);
    const uint32_t sent = sink->SendReads(region, first, here, mine->scratch);
    const bool with_own = own && first == mine->pages;
    if (with_own) *own_sent = sent > 0;
    for (uint32_t i = std::max(sent, with_own ? 1U : 0U); i < here; i++) {
      TakeBack(sink, region, first[i]);
    }
    ahead += with_own && sent > 0 ? sent - 1 : sent;
    all = all && sent == here;
    first = last;
  }
  region->stats().pages_prefetched.fetch_add(ahead, std::memory_order_relaxed);
  *asked += ahead;
  return all;
}

// Fills up the window.
AskedAhead AskWindow(FaultSink* sink, Region* region, ThreadStreams* mine, Stream* stream,
                     bool own) {
  const int64_t end =
      static_cast<int64_t>(stream->last) + static_cast<int64_t>(stream->stride) * stream->window;
  const auto within = [&](int64_t page) {
    const bool before_end = stream->stride > 0 ? page <= end : page >= end;
    return before_end && page >= 0 && page < region->page_count();
  };
  AskedAhead asked = AskedAhead::kNothing;
  bool all = true, own_sent = false;
  // Pages of a home on this host need not be asked for; and what one of them is, the next ones are.
  const auto fills = [&](int64_t next) {
    const uint32_t page = static_cast<uint32_t>(next);
    return region->HomeOf(page) != region->options().rank &&
           Fill(sink, region, page, Access::kRead) == Filled::kYes;
  };
  uint32_t filled = 0;
  for (; !own && within(stream->next) && fills(stream->next); stream->next += stream->stride) {
    filled++;
  }
  region->stats().pages_prefetched.fetch_add(filled, std::memory_order_relaxed);
  stream->asked += filled;
  while (all && within(stream->next)) {
    const bool with_own = own && asked == AskedAhead::kNothing;
    uint32_t count = 0;
    if (with_own) mine->pages[count++] = stream->last;
    for (; count < ThreadStreams::kMostPages && within(stream->next);
         stream->next += stream->stride) {
      const uint32_t page = static_cast<uint32_t>(stream->next);
      if (TakeReading(region, page)) mine->pages[count++] = page;
    }
    if (count == (with_own ? 1U : 0U)) continue;
    all = SendPages(sink, region, mine, count, with_own, &own_sent, &stream->asked);
    if (with_own) asked = own_sent ? AskedAhead::kSent : AskedAhead::kUnsent;
  }
  return asked;
}

}  // namespace

void ReadFor(uint32_t thread) { thread_number = thread; }

AskedAhead AskAhead(FaultSink* sink, Region* region, uint32_t page, bool own) {
  PrefetchTable* table = region->prefetch_table();
  if (table == nullptr) return AskedAhead::kNothing;
  ThreadStreams* mine = MyStreams(table);
  if (!mine->lock.TryLock()) return AskedAhead::kNothing;
  AskedAhead asked = AskedAhead::kNothing;
  Stream* stream = Note(region, mine, page);
  if (stream != nullptr && Grow(region, mine, stream)) {
    asked = AskWindow(sink, region, mine, stream, own);
  }
  mine->lock.Unlock();
  return asked;
}

}  // namespace pagemesh
