// One TCP connection: cuts the stream into records, and keeps what the socket does not take.
#ifndef PAGEMESH_TRANSPORT_TCP_TCP_CONNECTION_H_
#define PAGEMESH_TRANSPORT_TCP_TCP_CONNECTION_H_

#include <sys/uio.h>

#include <atomic>
#include <vector>

#include "base/futex_lock.h"
#include "base/unique_fd.h"
#include "transport/transport.h"

namespace pagemesh {

class TcpConnection {
 public:
  TcpConnection(int number, UniqueFd fd, bool connecting);
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;

  // Engine thread only, but where it says otherwise.
  int number() const { return number_; }
  int fd() const { return fd_.get(); }
  bool open() const { return fd_.valid(); }
  int rank = kNoRank;  // other threads may read it once the connection is found by its rank
  bool connecting;
  bool in_refused_list = false;
  bool in_queued_list = false;

  // Reads what is there and hands whole records to the client; `*any` says whether there was
  // anything. Returns 0, or why the connection must end. Stops early when the client has no room;
  // then refused() is true.
  uint32_t Receive(TransportClient* client, bool* any);
  // Hands over the record that was refused, or that a thread has left, and what was read behind it.
  uint32_t Deliver(TransportClient* client);
  bool refused() const { return refused_.load(std::memory_order_relaxed); }
  // How many pages the member has asked for since the last call.
  uint32_t TakeRequestCount() {
    const uint32_t count = request_count_;
    request_count_ = 0;
    return count;
  }

  // Faulting threads, in signal handlers: reads what is there and carries out answers, in their
  // order, up to the first record that is for the engine. True if there is one now, and was none
  // before: the engine must be woken for it.
  bool TakeAnswers(TransportClient* client);
  // A record waits for the engine that a thread came to. Any thread.
  bool is_left() const { return left_.load(std::memory_order_acquire); }
  // Threads that look for answers. Any thread; returns how many there were before.
  int AddLookers(int count) { return lookers_.fetch_add(count); }
  bool is_looked_at() const { return lookers_.load() > 0; }

  // Tells epoll what is waited for. Nothing to read while the client has no room, or while threads
  // look. Any thread, inside signal handlers too.
  void Watch(int epoll_fd);
  // Adds the connection to it.
  bool WatchFirst(int epoll_fd);

  // Sending. Queue keeps pointers until SendQueued, which returns 0 or why the connection must end.
  void Queue(const Record* record, const uint8_t* payload);
  uint32_t SendQueued();
  void SendBacklog();
  bool has_backlog() const { return has_backlog_.load(std::memory_order_acquire); }
  // Any thread, inside signal handlers too: takes no lock that is held, allocates nothing. Returns
  // how many of the records were sent. `*partial` asks for the engine to be woken: a piece of the
  // last of them is left in the backlog.
  uint32_t TrySend(const Record* records, uint32_t count, bool* partial);
  void CloseSocket();

 private:
  uint32_t ReceiveLocked(TransportClient* client, bool* any);
  uint32_t DeliverLocked(TransportClient* client);
  ssize_t ReadLocked(size_t* asked);
  bool TakePayload();
  bool TakeLocked(TransportClient* client);
  enum class Step { kNeedsMore, kLeave };
  Step TakeBuffered(TransportClient* client);
  uint32_t Wanted() const;
  uint32_t BeginRecord(TransportClient* client);
  uint32_t SendLocked(struct iovec* pieces, size_t count);
  void BreakLocked();
  void KeepLocked(const struct iovec* pieces, size_t count, size_t skip);

  const int number_;
  UniqueFd fd_;  // closed under all locks

  // What epoll was asked for.
  FutexLock watch_lock_;
  uint32_t watched_ = 0;  // watch_lock_
  std::atomic<int> lookers_{0};

  // Receiving. receive_lock_ orders the engine and faulting threads; all but atomics are under it.
  // A thread leaves in the buffer, or whole in head_, what is for the engine.
  FutexLock receive_lock_;
  std::atomic<bool> left_{false};
  std::atomic<bool> refused_{false};  // by the client; engine thread
  uint32_t request_count_ = 0;        // engine thread
  uint32_t failed_ = 0;               // why a thread could read no more
  std::vector<uint8_t> buffer_;
  size_t begin_ = 0, end_ = 0;  // what of buffer_ is read but not yet used
  Record head_{};
  bool in_payload_ = false;
  bool complete_ = false;  // head_ and its payload are whole and wait for the client
  uint8_t* payload_at_ = nullptr;
  size_t payload_left_ = 0;
  std::vector<uint8_t> blob_;

  // Sending. send_lock_ orders the engine and faulting threads.
  FutexLock send_lock_;
  std::vector<struct iovec> pieces_;  // engine thread: queued, not yet sent
  std::vector<uint8_t> backlog_;      // send_lock_
  size_t backlog_at_ = 0;             // send_lock_
  uint8_t tail_[sizeof(Record)];      // send_lock_: rest of a record that TrySend cut
  size_t tail_length_ = 0;            // send_lock_; goes out before backlog_
  std::atomic<bool> has_backlog_{false};
  bool broken_ = false;  // send_lock_; the socket takes no more, but may still be read
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_TCP_TCP_CONNECTION_H_
