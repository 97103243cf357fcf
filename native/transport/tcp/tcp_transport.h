// The transport that works anywhere: one TCP connection for each pair of members.
#ifndef PAGEMESH_TRANSPORT_TCP_TCP_TRANSPORT_H_
#define PAGEMESH_TRANSPORT_TCP_TCP_TRANSPORT_H_

#include <atomic>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/unique_fd.h"
#include "transport/tcp/tcp_connection.h"
#include "transport/transport.h"

namespace pagemesh {

class TcpTransport final : public Transport {
 public:
  // Registers its descriptors with `epoll_fd` under `token_base` + connection number.
  TcpTransport(int epoll_fd, TransportClient* client);

  int Listen(const char* host, uint16_t port) override;
  int Connect(const char* host, uint16_t port) override;
  bool Bind(int connection, int rank) override;
  void Close(int connection) override;
  void CloseAll() override;
  bool IsOpen(int rank) const override;
  void Queue(int rank, const Record* record, const uint8_t* payload) override;
  void QueueTo(int connection, const Record* record, const uint8_t* payload) override;
  void Flush() override;
  bool TrySend(int rank, const Record& record, uint32_t slot) override;
  uint32_t TrySendMany(int rank, const Record* records, uint32_t count) override;
  bool Polls() const override { return (asked_.load() | asking_.load()) != 0; }
  bool Spins() const override { return asking_.load() != 0 && singles_ >= kLeastSingles; }
  bool MayAnswer(int rank) const override;
  bool PollAnswers() override;
  bool BeginLooking(int rank) override;
  void EndLooking(int rank) override;
  bool Poll() override;
  void OnReady(uint32_t token, uint32_t events) override;
  bool Resume() override;

 private:
  static constexpr uint32_t kListenerToken = 0;  // connections are numbered from 1

  void AcceptAll();
  int Adopt(UniqueFd fd, bool connecting);
  TcpConnection* Find(int connection);
  void QueueOn(TcpConnection* connection, const Record* record, const uint8_t* payload);
  bool ReceiveFrom(TcpConnection* connection);
  void CountRequests(TcpConnection* connection);
  bool PollMany();
  bool ReceiveLeft();
  template <typename Visit>
  void ForEachOf(uint32_t ranks, Visit visit) const;
  void End(TcpConnection* connection, uint32_t reason);

  const int epoll_fd_;
  TransportClient* const client_;
  UniqueFd listener_;
  int next_number_ = 1;
  // A connection stays here when it has ended, if it was bound: a faulting thread may hold it.
  std::unordered_map<int, std::unique_ptr<TcpConnection>> connections_;
  std::atomic<TcpConnection*> by_rank_[kMaxMembers] = {};
  // A bit for each rank that was asked for pages over its connection, or is asking for some:
  // members that have a link do so over that.
  std::atomic<uint32_t> asked_{0}, asking_{0};
  static constexpr uint32_t kLeastSingles = 8;
  uint32_t singles_ = kLeastSingles;     // engine thread: looks since one found a run of requests
  std::vector<TcpConnection*> queued_;   // have something for Flush
  std::vector<TcpConnection*> refused_;  // have a record that the client had no room for
  std::vector<TcpConnection*> again_;    // during Resume: those to which it is offered again
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_TCP_TCP_TRANSPORT_H_
