// Memory shared with members on the same host, around another transport, which reaches the others,
// carries blobs, and notices that a member is gone.
#ifndef PAGEMESH_TRANSPORT_SHM_SHM_TRANSPORT_H_
#define PAGEMESH_TRANSPORT_SHM_SHM_TRANSPORT_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "transport/shm/shm_peer.h"
#include "transport/shm/shm_socket.h"
#include "transport/transport.h"

namespace pagemesh {

class ShmTransport final : public Transport {
 public:
  using MakeInner = std::function<std::unique_ptr<Transport>(TransportClient*)>;
  // `make_inner` makes the other transport, on the same `epoll_fd`.
  ShmTransport(int epoll_fd, TransportClient* client, const MakeInner& make_inner);
  ~ShmTransport() override;

  int Listen(const char* host, uint16_t port) override { return inner_->Listen(host, port); }
  int Connect(const char* host, uint16_t port) override { return inner_->Connect(host, port); }
  bool Bind(int connection, int rank) override;
  void Close(int connection) override;
  void CloseAll() override;
  bool IsOpen(int rank) const override { return inner_->IsOpen(rank); }
  void Queue(int rank, const Record* record, const uint8_t* payload) override;
  void QueueTo(int connection, const Record* record, const uint8_t* payload) override {
    inner_->QueueTo(connection, record, payload);
  }
  void Flush() override;
  bool TrySend(int rank, const Record& record, uint32_t slot) override;
  uint32_t TrySendMany(int rank, const Record* records, uint32_t count) override {
    return PeerAt(rank) == nullptr ? inner_->TrySendMany(rank, records, count)
                                   : Transport::TrySendMany(rank, records, count);
  }
  bool TrySendArrival(int rank, const Record& record, uint32_t which) override {
    ShmPeer* peer = PeerAt(rank);
    return peer == nullptr ? inner_->TrySendArrival(rank, record, which)
                           : peer->TrySendArrival(record, which, rank_);
  }
  bool TakesRuns(int rank) const override {
    return PeerAt(rank) != nullptr || inner_->TakesRuns(rank);
  }
  bool Polls() const override { return using_any_ || inner_->Polls(); }
  bool Spins() const override { return using_any_ || inner_->Spins(); }
  bool MayAnswer(int rank) const override {
    return PeerAt(rank) != nullptr || inner_->MayAnswer(rank);
  }
  bool PollAnswers() override;
  bool WatchAnswers() override;
  bool BeginLooking(int rank) override {
    return PeerAt(rank) == nullptr && inner_->BeginLooking(rank);
  }
  void EndLooking(int rank) override { inner_->EndLooking(rank); }
  bool WatchTokens() override;
  bool Poll() override;
  void Arm(bool every_answer) override;
  void Disarm() override;
  void MarkStepped() override;
  void OnReady(uint32_t token, uint32_t events) override;
  bool Resume() override;

  bool OpenLinks(const RdmaAddress& at, int rank, std::string* what) override {
    return inner_->OpenLinks(at, rank, what);
  }
  bool OpenShm(int rank, std::string* what) override;
  bool OfferLink(LinkWay way, int rank, std::vector<uint8_t>* offer) override;
  bool AcceptLink(LinkWay way, int rank, const std::vector<uint8_t>& offer) override;
  bool ProbeLink(LinkWay way, int rank) override;
  void UseLink(LinkWay way, int rank) override;
  void DropLink(LinkWay way, int rank) override;
  bool AdmitRegion(size_t bytes) override { return inner_->AdmitRegion(bytes); }
  int ShareRegion(uint32_t region, int fd, size_t frames_bytes, size_t total_bytes) override;
  bool FindPeerMemory(int rank, uint32_t region, PeerMemory* memory) const override;
  bool HasSteppedDiscards(int rank) const override;
  void ForgetRegion(uint32_t region) override { inner_->ForgetRegion(region); }
  bool ShareWords(uint32_t region, uint8_t* base, size_t length, WordsKey* key) override {
    return inner_->ShareWords(region, base, length, key);
  }
  void ChangeWord(int rank, const WordChange& change) override { inner_->ChangeWord(rank, change); }
  uint64_t LinkRecords(LinkWay way) const override {
    return way == LinkWay::kShm ? records_.load() : inner_->LinkRecords(way);
  }

 private:
  // How the inner transport's calls reach our client: a connection may close while records that its
  // member sent before are still in the ring.
  class InnerClient final : public TransportClient {
   public:
    explicit InnerClient(ShmTransport* owner) : owner_(owner) {}
    uint8_t* FrameFor(int rank, const Record& record, size_t* length) override;
    bool OnRecord(int connection, int rank, const Record& record, const uint8_t* blob) override;
    bool AnswerAtOnce(int rank, const Record& request, Record* answer,
                      const uint8_t** page) override;
    bool TakeAnswer(int rank, const Record& record) override;
    bool ExpectsAnswer(int rank, const Record& record, uint8_t** frame) override;
    bool DescribeSlot(uint32_t slot, uint32_t* region, uint32_t* page) override;
    bool OnWord(uint32_t request, uint64_t before) override;
    bool DescribeRegion(uint32_t region, RegionMemory* memory) override;
    int HomeOf(uint32_t region, uint32_t page) override;
    void OnOpened(int connection) override;
    void OnAccepted(int connection) override;
    void OnClosed(int connection, int rank, uint32_t reason) override;
    void OnLinkProbed(int rank, uint32_t reason) override;

   private:
    ShmTransport* const owner_;
  };

  // A connection that closed before what its member had sent was all handed over.
  struct Closing {
    int connection;
    int rank;
    uint32_t reason;
  };

  enum class Outcome { kNothing, kHandled, kRefused };

  ShmPeer* PeerAt(int rank) const { return in_use_[rank].load(std::memory_order_acquire); }
  bool Watch(int fd, uint32_t token);
  void AcceptAll();
  bool Greet(UniqueFd* socket);
  Outcome Receive(ShmPeer* peer);
  uint32_t Deliver(ShmPeer* peer, const Record& record, bool* refused);
  bool TakeAnswers(ShmPeer* peer);
  bool ReceiveAll();
  void FinishClosing();
  void EndPeer(int rank);
  void Break(int rank, uint32_t reason);

  const int epoll_fd_;
  TransportClient* const client_;
  InnerClient inner_client_;
  std::unique_ptr<Transport> inner_;
  int rank_ = 0;
  ShmOffer mine_ = {};  // without a token
  UniqueFd listener_;
  UniqueFd event_fd_;              // peers wake the engine by it
  std::vector<UniqueFd> unknown_;  // have connected and not yet said who they are
  std::unique_ptr<ShmPeer> peers_[kMaxMembers];
  std::atomic<ShmPeer*> in_use_[kMaxMembers] = {};
  std::atomic<bool> using_any_{false};
  int connections_[kMaxMembers];  // the inner transport's, by rank; -1 if none
  bool broken_[kMaxMembers] = {};
  std::vector<Closing> closing_;
  std::atomic<uint64_t> records_{0};
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_SHM_SHM_TRANSPORT_H_
