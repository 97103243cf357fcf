// Automatic prefetch: from the pages that a thread reads, guesses which it reads next, and asks for
// them before it does. Everything here happens in faults, and so must be async-signal-safe.
//
// A stream is a run of reads at one distance from each other, forward or backward. Once it has been
// seen for a few pages, a window of pages ahead of it is asked for; the window doubles as the
// reader comes into it (after the readahead of Linux, mm/readahead.c). Pages that came by prefetch
// stay lowered until they are touched: that touch, which costs no message, raises what else is
// there and tells how far the reader is.
#ifndef PAGEMESH_MEMORY_PREFETCH_H_
#define PAGEMESH_MEMORY_PREFETCH_H_

#include <cstddef>
#include <cstdint>

#include "base/futex_lock.h"
#include "memory/fault.h"

namespace pagemesh {

// A run of reads at one distance, of one thread.
struct Stream {
  uint32_t used_at = 0;  // when it was last of use, in the thread's own count; 0 if never
  uint32_t last = 0;     // the page that was read last
  int32_t stride = 0;    // to the next one; 0 while only one page is known
  uint32_t run = 0;      // how many reads in a row went on by the stride
  uint32_t window = 0;   // how many pages ahead are asked for; 0: none yet
  uint32_t asked = 0;    // how many were asked for ahead in all
  int64_t next = 0;      // the first page of the stream that was not asked for
};

// The streams of one thread in one region. More threads than there are of these share them.
struct ThreadStreams {
  static constexpr uint32_t kStreams = 8;
  static constexpr uint32_t kMostPages = 64;  // asked for in one call

  FutexLock lock;        // only ever tried: who does not get it asks for nothing ahead
  uint32_t clock = 0;    // lock
  uint32_t caution = 0;  // lock; rises with windows that were of no use
  Stream streams[kStreams];
  uint32_t pages[kMostPages];  // lock: to be asked for
  // lock: where the requests are written, because a signal's stack may be small.
  alignas(8) uint8_t scratch[kMostPages * kRequestBytes];
};

// The streams of all threads in one region. All zeros is the beginning.
struct PrefetchTable {
  static constexpr uint32_t kThreads = 64;
  ThreadStreams threads[kThreads];
};

enum class AskedAhead {
  kNothing,  // the page's own request, if there is one, is still to be sent
  kSent,     // it went out, with others behind it
  kUnsent,   // it could not be sent, nor could any other
};

// From now on this thread reads for the one of this number.
void ReadFor(uint32_t thread);

// This thread reads the page. Asks for what it will probably read next; with `own`, the page is in
// state reading and its own request goes first.
AskedAhead AskAhead(FaultSink* sink, Region* region, uint32_t page, bool own);

}  // namespace pagemesh

#endif  // PAGEMESH_MEMORY_PREFETCH_H_
