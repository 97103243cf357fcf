#include "transport/tcp/tcp_connection.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/check.h"

namespace pagemesh {
namespace {

constexpr size_t kBufferBytes = 128 * 1024;
constexpr size_t kReceiveBudgetBytes = 1024 * 1024;  // then it is the next connection's turn
constexpr size_t kMaxPieces = 128;                   // of one sendmsg
constexpr size_t kUsualPieces = 1024;                // of one flush; more are allocated for
constexpr size_t kMaxBacklogBytes = 1024UL * 1024 * 1024;

uint32_t Reason(CloseReason reason) { return static_cast<uint32_t>(reason); }

}  // namespace

TcpConnection::TcpConnection(int number, UniqueFd fd, bool is_connecting)
    : connecting(is_connecting), number_(number), fd_(std::move(fd)), buffer_(kBufferBytes) {
  pieces_.reserve(kUsualPieces);
}

uint32_t TcpConnection::Receive(TransportClient* client, bool* any) {
  FutexGuard guard(receive_lock_);
  const uint32_t failed = ReceiveLocked(client, any);
  refused_.store(failed == 0 && complete_, std::memory_order_relaxed);
  return failed;
}

uint32_t TcpConnection::ReceiveLocked(TransportClient* client, bool* any) {
  if (left_.exchange(false)) {
    *any = true;
    const uint32_t failed = DeliverLocked(client);
    if (failed != 0) return failed;
  }
  size_t budget = kReceiveBudgetBytes;
  while (budget > 0 && !complete_) {
    if (failed_ != 0) return failed_;
    size_t asked = 0;
    const ssize_t got = ReadLocked(&asked);
    if (got == 0) return Reason(CloseReason::kEndOfStream);
    if (got < 0) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : static_cast<uint32_t>(errno);
    }
    *any = true;
    const uint32_t failed = DeliverLocked(client);
    if (failed != 0) return failed;
    const size_t received = static_cast<size_t>(got);
    if (received < asked) return 0;  // drained; epoll is level-triggered
    budget -= std::min(budget, received);
  }
  return 0;
}

// Reads once. A payload goes straight to where it belongs; what follows it lands in the buffer.
ssize_t TcpConnection::ReadLocked(size_t* asked) {
  if (begin_ == end_) begin_ = end_ = 0;
  if (begin_ > 0 && buffer_.size() - end_ < sizeof(Record)) {
    memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  iovec into[2];
  int count = 0;
  size_t direct = 0;
  if (in_payload_ && begin_ == end_) {
    direct = payload_left_;
    into[count++] = {payload_at_, payload_left_};
  }
  into[count++] = {buffer_.data() + end_, buffer_.size() - end_};
  *asked = direct + (buffer_.size() - end_);
  ssize_t got;
  do {
    // Not readv for one piece: most looks find nothing, and this one costs less.
    got = count == 1 ? recv(fd_.get(), into[0].iov_base, into[0].iov_len, MSG_DONTWAIT)
                     : readv(fd_.get(), into, count);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return got;
  const size_t in_place = std::min(static_cast<size_t>(got), direct);
  payload_at_ += in_place;
  payload_left_ -= in_place;
  end_ += static_cast<size_t>(got) - in_place;
  return got;
}

// Takes what the buffer has of the payload. True if that was the rest of it.
bool TcpConnection::TakePayload() {
  const size_t take = std::min(payload_left_, end_ - begin_);
  if (take > 0) memcpy(payload_at_, buffer_.data() + begin_, take);
  begin_ += take;
  payload_at_ += take;
  payload_left_ -= take;
  if (payload_left_ > 0) return false;
  in_payload_ = false;
  complete_ = true;
  return true;
}

uint32_t TcpConnection::Deliver(TransportClient* client) {
  FutexGuard guard(receive_lock_);
  left_.store(false);
  uint32_t failed = DeliverLocked(client);
  if (failed == 0 && !complete_) failed = failed_;
  refused_.store(failed == 0 && complete_, std::memory_order_relaxed);
  return failed;
}

uint32_t TcpConnection::DeliverLocked(TransportClient* client) {
  for (;;) {
    if (in_payload_) {
      if (!TakePayload()) return 0;
    } else if (!complete_) {
      if (end_ - begin_ < sizeof(Record)) return 0;
      memcpy(&head_, buffer_.data() + begin_, sizeof(Record));
      begin_ += sizeof(Record);
      const uint32_t failed = BeginRecord(client);
      if (failed != 0) return failed;
      if (in_payload_) continue;
      complete_ = true;
    }
    const uint8_t* blob = head_.kind >= kFirstBlobKind ? blob_.data() : nullptr;
    if (!client->OnRecord(number_, rank, head_, blob)) return 0;
    complete_ = false;
  }
}

bool TcpConnection::TakeAnswers(TransportClient* client) {
  if (!receive_lock_.TryLock()) return false;  // whoever looks now finds this thread's too
  bool leaves = false;
  if (fd_.valid() && !left_.load(std::memory_order_relaxed) && !complete_ && failed_ == 0) {
    leaves = TakeLocked(client);
    if (leaves) left_.store(true, std::memory_order_release);
  }
  receive_lock_.Unlock();
  return leaves;
}

// True if there is something for the engine.
bool TcpConnection::TakeLocked(TransportClient* client) {
  bool drained = false;
  for (;;) {
    const Step step = TakeBuffered(client);
    if (step == Step::kLeave) return true;
    if (drained) return false;
    size_t asked = 0;
    const ssize_t got = ReadLocked(&asked);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (got <= 0) {
      failed_ = got < 0 ? static_cast<uint32_t>(errno) : Reason(CloseReason::kEndOfStream);
      return true;
    }
    drained = static_cast<size_t>(got) < asked;
  }
}

// Carries out answers as far as they have been read. What is not sure to be one is left as it is.
TcpConnection::Step TcpConnection::TakeBuffered(TransportClient* client) {
  for (;;) {
    uint8_t* frame = nullptr;
    if (in_payload_) {
      if (!client->ExpectsAnswer(rank, head_, &frame)) return Step::kLeave;  // the engine began it
    } else {
      if (end_ - begin_ < sizeof(Record)) return Step::kNeedsMore;
      Record record;
      memcpy(&record, buffer_.data() + begin_, sizeof(Record));
      if (!client->ExpectsAnswer(rank, record, &frame)) return Step::kLeave;
      if ((frame == nullptr) != (record.payload_bytes == 0)) return Step::kLeave;
      begin_ += sizeof(Record);
      head_ = record;
      payload_at_ = frame;
      payload_left_ = record.payload_bytes;
      in_payload_ = payload_left_ > 0;
    }
    if (in_payload_ && !TakePayload()) return Step::kNeedsMore;
    complete_ = !client->TakeAnswer(rank, head_);
    if (complete_) return Step::kLeave;
  }
}

// Decides whether the record may come and where its payload goes. These bytes are a peer's.
uint32_t TcpConnection::BeginRecord(TransportClient* client) {
  const bool stranger = rank == kNoRank;
  if (!stranger && IsRequest(head_.kind)) request_count_++;
  if (head_.kind == 0 || head_.kind > kLastKind || (stranger && head_.kind != kKindCluster)) {
    return Reason(CloseReason::kBadRecord);
  }
  if (head_.kind >= kFirstBlobKind) {
    const uint32_t limit = stranger ? kMaxStrangerBlobBytes : kMaxBlobBytes;
    if (head_.payload_bytes > limit) return Reason(CloseReason::kBadRecord);
    blob_.resize(head_.payload_bytes);
    payload_at_ = blob_.data();
  } else if (head_.kind >= kFirstPageKind) {
    size_t length = 0;
    payload_at_ = client->FrameFor(rank, head_, &length);
    if (payload_at_ == nullptr) return Reason(CloseReason::kBadPage);
    if (length != head_.payload_bytes) return Reason(CloseReason::kBadRecord);
  } else if (head_.payload_bytes != 0) {
    return Reason(CloseReason::kBadRecord);
  }
  payload_left_ = head_.payload_bytes;
  in_payload_ = payload_left_ > 0;
  return 0;
}

void TcpConnection::Queue(const Record* record, const uint8_t* payload) {
  pieces_.push_back({const_cast<Record*>(record), sizeof(Record)});
  if (record->payload_bytes > 0) {
    pieces_.push_back({const_cast<uint8_t*>(payload), record->payload_bytes});
  }
}

uint32_t TcpConnection::SendQueued() {
  FutexGuard guard(send_lock_);
  uint32_t failed = 0;
  if (!fd_.valid()) {
    pieces_.clear();
    return 0;
  }
  for (size_t at = 0; at < pieces_.size() && failed == 0; at += kMaxPieces) {
    failed = SendLocked(pieces_.data() + at, std::min(kMaxPieces, pieces_.size() - at));
  }
  pieces_.clear();
  return failed;
}

uint32_t TcpConnection::SendLocked(struct iovec* pieces, size_t count) {
  if (broken_) return 0;
  size_t sent = 0;
  if (!connecting && !has_backlog_.load(std::memory_order_relaxed)) {
    msghdr message = {};
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    ssize_t result;
    do {
      result = sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (result < 0 && errno == EINTR);
    if (result < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
      BreakLocked();
      return 0;
    }
    sent = result < 0 ? 0 : static_cast<size_t>(result);
  }
  KeepLocked(pieces, count, sent);
  return backlog_.size() - backlog_at_ > kMaxBacklogBytes ? Reason(CloseReason::kNotReading) : 0;
}

void TcpConnection::KeepLocked(const struct iovec* pieces, size_t count, size_t skip) {
  for (size_t i = 0; i < count; i++) {
    const size_t sent = std::min(skip, pieces[i].iov_len);
    skip -= sent;
    const uint8_t* from = static_cast<const uint8_t*>(pieces[i].iov_base);
    backlog_.insert(backlog_.end(), from + sent, from + pieces[i].iov_len);
  }
  if (backlog_.size() > backlog_at_) has_backlog_.store(true, std::memory_order_release);
}

void TcpConnection::SendBacklog() {
  FutexGuard guard(send_lock_);
  while (fd_.valid() && (tail_length_ > 0 || backlog_.size() > backlog_at_)) {
    iovec pieces[2] = {{tail_, tail_length_},
                       {backlog_.data() + backlog_at_, backlog_.size() - backlog_at_}};
    msghdr message = {};
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    const ssize_t result = sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) BreakLocked();
      return;
    }
    size_t sent = static_cast<size_t>(result);
    const size_t of_tail = std::min(sent, tail_length_);
    memmove(tail_, tail_ + of_tail, tail_length_ - of_tail);
    tail_length_ -= of_tail;
    sent -= of_tail;
    backlog_at_ += sent;
  }
  backlog_.clear();
  backlog_at_ = 0;
  has_backlog_.store(false, std::memory_order_release);
}

// What the other side sent before it went may still be unread, and reading tells why it went.
void TcpConnection::BreakLocked() {
  broken_ = true;
  tail_length_ = 0;
  backlog_.clear();
  backlog_at_ = 0;
  has_backlog_.store(false, std::memory_order_release);
}

uint32_t TcpConnection::TrySend(const Record* records, uint32_t count, bool* partial) {
  *partial = false;
  if (!send_lock_.TryLock()) return 0;
  uint32_t taken = 0;
  if (fd_.valid() && !broken_ && !connecting && !has_backlog_.load(std::memory_order_relaxed)) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(records);
    const ssize_t result =
        send(fd_.get(), bytes, count * sizeof(Record), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result > 0) {
      const size_t sent = static_cast<size_t>(result);
      taken = static_cast<uint32_t>((sent + sizeof(Record) - 1) / sizeof(Record));
      tail_length_ = taken * sizeof(Record) - sent;
      if (tail_length_ > 0) {
        memcpy(tail_, bytes + sent, tail_length_);
        has_backlog_.store(true, std::memory_order_release);
        *partial = true;
      }
    }
  }
  send_lock_.Unlock();
  return taken;
}

void TcpConnection::Watch(int epoll_fd) {
  FutexGuard guard(watch_lock_);
  if (!fd_.valid()) return;
  const uint32_t wanted = Wanted();
  if (wanted == watched_) return;
  epoll_event event = {};
  event.events = wanted;
  event.data.u32 = static_cast<uint32_t>(number_);
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd_.get(), &event);
  watched_ = wanted;
}

bool TcpConnection::WatchFirst(int epoll_fd) {
  FutexGuard guard(watch_lock_);
  watched_ = Wanted();
  epoll_event event = {};
  event.events = watched_;
  event.data.u32 = static_cast<uint32_t>(number_);
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd_.get(), &event) == 0;
}

uint32_t TcpConnection::Wanted() const {
  if (connecting) return EPOLLOUT;
  const bool reads = !refused() && !is_looked_at();
  return (reads ? static_cast<uint32_t>(EPOLLIN) : 0U) |
         (has_backlog() ? static_cast<uint32_t>(EPOLLOUT) : 0U);
}

void TcpConnection::CloseSocket() {
  FutexGuard receive_guard(receive_lock_);
  FutexGuard watch_guard(watch_lock_);
  FutexGuard send_guard(send_lock_);
  fd_.Reset();
  BreakLocked();
  std::vector<uint8_t>().swap(buffer_);
  begin_ = end_ = 0;
  std::vector<uint8_t>().swap(backlog_);
}

}  // namespace pagemesh
