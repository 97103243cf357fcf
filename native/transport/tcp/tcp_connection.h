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

  // Engine thread only, except TrySend.
  int number() const { return number_; }
  int fd() const { return fd_.get(); }
  bool open() const { return fd_.valid(); }
  int rank = kNoRank;
  bool connecting;
  uint32_t watched = 0;  // what epoll was asked for
  bool in_refused_list = false;
  bool in_queued_list = false;

  // Reads what is there and hands whole records to the client. Returns 0, or why the connection
  // must end. Stops early when the client has no room; then refused() is true.
  uint32_t Receive(TransportClient* client);
  // Hands over the record that was refused and what was read behind it.
  uint32_t Deliver(TransportClient* client);
  bool refused() const { return complete_; }

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
  uint32_t BeginRecord(TransportClient* client);
  uint32_t SendLocked(struct iovec* pieces, size_t count);
  void BreakLocked();
  void KeepLocked(const struct iovec* pieces, size_t count, size_t skip);

  const int number_;
  UniqueFd fd_;  // closed under send_lock_

  // Receiving.
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
