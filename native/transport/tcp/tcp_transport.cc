#include "transport/tcp/tcp_transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <utility>

#include "base/spin.h"

namespace pagemesh {
namespace {

constexpr int kBacklog = 128;
constexpr int kMostReadOneByOne = 4;  // connections; of more it is asked which have something

constexpr uint32_t kLeastRun = 4;  // requests at a time

void AddRank(std::atomic<uint32_t>* ranks, int rank) {
  const uint32_t bit = 1U << rank;
  if ((ranks->load(std::memory_order_relaxed) & bit) == 0) ranks->fetch_or(bit);
}

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

bool ParseAddress(const char* host, uint16_t port, Address* address) {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address->storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address->storage);
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address->length = sizeof(*v4);
    return true;
  }
  if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address->length = sizeof(*v6);
    return true;
  }
  return false;
}

UniqueFd OpenSocket(int family) {
  return UniqueFd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
}

int PortOf(int fd) {
  Address address;
  address.length = sizeof(address.storage);
  if (getsockname(fd, address.get(), &address.length) != 0) return -errno;
  if (address.storage.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port);
  }
  return ntohs(reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port);
}

}  // namespace

TcpTransport::TcpTransport(int epoll_fd, TransportClient* client)
    : epoll_fd_(epoll_fd), client_(client) {}

int TcpTransport::Listen(const char* host, uint16_t port) {
  Address address;
  if (!ParseAddress(host, port, &address)) return -EINVAL;
  UniqueFd fd = OpenSocket(address.storage.ss_family);
  if (!fd.valid()) return -errno;
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd.get(), address.get(), address.length) != 0) return -errno;
  if (listen(fd.get(), kBacklog) != 0) return -errno;
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u32 = kListenerToken;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd.get(), &event) != 0) return -errno;
  listener_ = std::move(fd);
  return PortOf(listener_.get());
}

int TcpTransport::Connect(const char* host, uint16_t port) {
  Address address;
  if (!ParseAddress(host, port, &address)) return -EINVAL;
  UniqueFd fd = OpenSocket(address.storage.ss_family);
  if (!fd.valid()) return -errno;
  if (connect(fd.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    return -errno;
  }
  return Adopt(std::move(fd), true);
}

int TcpTransport::Adopt(UniqueFd fd, bool connecting) {
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const int number = next_number_++;
  auto connection = std::make_unique<TcpConnection>(number, std::move(fd), connecting);
  if (!connection->WatchFirst(epoll_fd_)) return -errno;
  connections_[number] = std::move(connection);
  return number;
}

TcpConnection* TcpTransport::Find(int connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end() || !found->second->open()) return nullptr;
  return found->second.get();
}

bool TcpTransport::Bind(int connection, int rank) {
  TcpConnection* found = Find(connection);
  if (found == nullptr || rank < 0 || rank >= static_cast<int>(kMaxMembers)) return false;
  if (by_rank_[rank].load() != nullptr || found->rank != kNoRank) return false;
  found->rank = rank;
  by_rank_[rank].store(found);
  return true;
}

void TcpTransport::Close(int connection) {
  TcpConnection* found = Find(connection);
  if (found == nullptr) return;
  found->SendQueued();
  End(found, static_cast<uint32_t>(CloseReason::kByUs));
}

void TcpTransport::CloseAll() {
  for (auto& entry : connections_) entry.second->CloseSocket();
  listener_.Reset();
}

bool TcpTransport::IsOpen(int rank) const {
  const TcpConnection* connection = by_rank_[rank].load();
  return connection != nullptr && connection->open();
}

// The connection is over: tells the client, unless it asked for this.
void TcpTransport::End(TcpConnection* connection, uint32_t reason) {
  const int number = connection->number();
  const int rank = connection->rank;
  connection->CloseSocket();
  if (rank != kNoRank) {
    asked_.fetch_and(~(1U << rank));
    asking_.fetch_and(~(1U << rank));
  }
  if (reason != static_cast<uint32_t>(CloseReason::kByUs)) {
    client_->OnClosed(number, rank, reason);
  }
  if (rank == kNoRank && !connection->in_refused_list && !connection->in_queued_list) {
    connections_.erase(number);
  }
}

void TcpTransport::AcceptAll() {
  for (;;) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    const int number = Adopt(std::move(fd), false);
    if (number > 0) client_->OnAccepted(number);
  }
}

void TcpTransport::OnReady(uint32_t token, uint32_t events) {
  if (token == kListenerToken) {
    AcceptAll();
    return;
  }
  TcpConnection* connection = Find(static_cast<int>(token));
  if (connection == nullptr) return;
  if (connection->connecting) {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(connection->fd(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      End(connection, static_cast<uint32_t>(error));
      return;
    }
    connection->connecting = false;
    client_->OnOpened(connection->number());
  }
  if ((events & EPOLLOUT) != 0) connection->SendBacklog();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    ReceiveFrom(connection);
  } else {
    connection->Watch(epoll_fd_);
  }
}

// True if there was anything.
bool TcpTransport::ReceiveFrom(TcpConnection* connection) {
  bool any = false;
  const uint32_t failed = connection->Receive(client_, &any);
  if (connection->refused() && !connection->in_refused_list) {
    connection->in_refused_list = true;
    refused_.push_back(connection);
  }
  CountRequests(connection);
  if (failed != 0) {
    End(connection, failed);
    return true;
  }
  connection->Watch(epoll_fd_);
  return any;
}

// Who asks for many pages at a time has others to read meanwhile. To look for each of them would
// cut the runs to pieces, of which each costs as much as the run.
void TcpTransport::CountRequests(TcpConnection* connection) {
  const uint32_t count = connection->TakeRequestCount();
  if (count == 0) return;
  AddRank(&asking_, connection->rank);
  singles_ = count >= kLeastRun ? 0 : singles_ + 1;
}

template <typename Visit>
void TcpTransport::ForEachOf(uint32_t ranks, Visit visit) const {
  for (; ranks != 0; ranks &= ranks - 1) {
    visit(by_rank_[__builtin_ctz(ranks)].load(std::memory_order_acquire));
  }
}

// Where nobody spins the engine is as quick, and need not be kept from the socket meanwhile.
bool TcpTransport::MayAnswer(int rank) const {
  return MaySpin() && by_rank_[rank].load(std::memory_order_acquire) != nullptr;
}

bool TcpTransport::BeginLooking(int rank) {
  TcpConnection* connection = by_rank_[rank].load(std::memory_order_acquire);
  if (connection == nullptr) return false;
  if (connection->AddLookers(1) == 0) connection->Watch(epoll_fd_);
  return true;
}

void TcpTransport::EndLooking(int rank) {
  TcpConnection* connection = by_rank_[rank].load(std::memory_order_acquire);
  if (connection->AddLookers(-1) == 1) connection->Watch(epoll_fd_);
}

bool TcpTransport::PollAnswers() {
  bool for_engine = false;
  ForEachOf(asked_.load(), [&](TcpConnection* connection) {
    if (!connection->is_looked_at()) return;
    for_engine = connection->TakeAnswers(client_) || for_engine;
  });
  return for_engine;
}

// What threads look at is theirs, but for what they leave; so are answers.
bool TcpTransport::Poll() {
  bool any = asked_.load() != 0 && ReceiveLeft();
  const uint32_t asking = asking_.load();
  if (__builtin_popcount(asking) > kMostReadOneByOne) return PollMany() || any;
  ForEachOf(asking, [&](TcpConnection* connection) {
    if (!connection->open() || connection->refused() || connection->is_looked_at()) return;
    any = ReceiveFrom(connection) || any;
  });
  return any;
}

// What threads have come to that is for the engine.
bool TcpTransport::ReceiveLeft() {
  bool any = false;
  ForEachOf(asked_.load(), [&](TcpConnection* connection) {
    if (!connection->open() || connection->refused() || !connection->is_left()) return;
    any = ReceiveFrom(connection) || any;
  });
  return any;
}

// Asks which connections have something; other descriptors are looked at before the engine sleeps.
bool TcpTransport::PollMany() {
  bool any = false;
  epoll_event ready[kMaxMembers];
  const int count = epoll_wait(epoll_fd_, ready, kMaxMembers, 0);
  for (int i = 0; i < count; i++) {
    const uint32_t token = ready[i].data.u32;
    if (token == kListenerToken || Find(static_cast<int>(token)) == nullptr) continue;
    OnReady(token, ready[i].events);
    any = true;
  }
  return any;
}

bool TcpTransport::Resume() {
  ForEachOf(asked_.load(), [&](TcpConnection* connection) {
    if (!connection->open() || !connection->is_left() || connection->in_refused_list) return;
    connection->in_refused_list = true;
    refused_.push_back(connection);
  });
  again_.clear();
  again_.swap(refused_);
  for (TcpConnection* connection : again_) {
    connection->in_refused_list = false;
    const uint32_t failed = connection->open() ? connection->Deliver(client_) : 0;
    CountRequests(connection);
    if (failed != 0) {
      End(connection, failed);
    } else if (connection->open() && connection->refused()) {
      connection->in_refused_list = true;
      refused_.push_back(connection);
    } else {
      connection->Watch(epoll_fd_);
    }
  }
  return !refused_.empty();
}

void TcpTransport::QueueOn(TcpConnection* connection, const Record* record,
                           const uint8_t* payload) {
  if (connection == nullptr || !connection->open()) return;  // its end is an event of its own
  connection->Queue(record, payload);
  if (connection->in_queued_list) return;
  connection->in_queued_list = true;
  queued_.push_back(connection);
}

void TcpTransport::Queue(int rank, const Record* record, const uint8_t* payload) {
  QueueOn(by_rank_[rank].load(), record, payload);
}

void TcpTransport::QueueTo(int connection, const Record* record, const uint8_t* payload) {
  QueueOn(Find(connection), record, payload);
}

void TcpTransport::Flush() {
  for (TcpConnection* connection : queued_) {
    connection->in_queued_list = false;
    const uint32_t failed = connection->SendQueued();
    if (failed != 0 && connection->open()) {
      End(connection, failed);
    } else {
      connection->Watch(epoll_fd_);
    }
  }
  queued_.clear();
}

bool TcpTransport::TrySend(int rank, const Record& record, uint32_t /*slot*/) {
  return TrySendMany(rank, &record, 1) == 1;
}

uint32_t TcpTransport::TrySendMany(int rank, const Record* records, uint32_t count) {
  TcpConnection* connection = by_rank_[rank].load(std::memory_order_acquire);
  bool partial = false;
  const uint32_t sent = connection == nullptr ? 0 : connection->TrySend(records, count, &partial);
  if (partial) connection->Watch(epoll_fd_);  // the engine waits for the socket to take the rest
  if (sent > 0) AddRank(&asked_, rank);
  return sent;
}

}  // namespace pagemesh
