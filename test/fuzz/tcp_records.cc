// libFuzzer's target for what a peer sends over TCP: TcpConnection, as it is shipped, at the other
// end of a socket pair. The first byte says whether the peer has proved its rank, whether a thread
// looks for answers before the engine reads, and how the bytes come in pieces; the second, which
// records find no room at first.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/check.h"
#include "transport/tcp/tcp_connection.h"

namespace pagemesh {
namespace {

constexpr uint32_t kPages = 4;
constexpr uint32_t kPageBytes = 4096;

class Client final : public TransportClient {
 public:
  explicit Client(uint8_t refusals) : refusals_(refusals) {}

  uint8_t* FrameFor(int rank, const Record& record, size_t* length) override {
    PM_CHECK(rank != kNoRank);
    if (record.page >= kPages) return nullptr;
    frame_.reset(new uint8_t[kPageBytes]);  // of its own, so that a byte too many is noticed
    *length = kPageBytes;
    return frame_.get();
  }
  bool OnRecord(int, int rank, const Record& record, const uint8_t* blob) override {
    PM_CHECK_STATE(record.kind > 0 && record.kind <= kLastKind, record.kind, rank);
    PM_CHECK_STATE(rank != kNoRank || record.kind == kKindCluster, record.kind, rank);
    PM_CHECK((blob != nullptr) == (record.kind >= kFirstBlobKind) || record.payload_bytes == 0);
    PM_CHECK(blob == nullptr || record.payload_bytes <= kMaxBlobBytes);
    const bool is_page = record.kind >= kFirstPageKind && record.kind < kFirstBlobKind;
    PM_CHECK(!is_page || record.payload_bytes == kPageBytes);
    for (uint32_t i = 0; blob != nullptr && i < record.payload_bytes; i++) sum_ = sum_ + blob[i];
#ifdef PAGEMESH_FUZZ_PLANTED
    // What the fuzzer must find: a length that is believed.
    if (record.kind == 0x85 && record.payload_bytes >= 2 && blob[0] >= 0x80) {
      const std::vector<uint8_t> small(4);
      sum_ = sum_ + small.data()[blob[1]];
    }
#endif
    const bool refused = (refusals_ & 1) != 0;
    refusals_ = static_cast<uint8_t>(refusals_ >> 1);
    return !refused;
  }
  bool AnswerAtOnce(int, const Record&, Record*, const uint8_t**) override { return false; }
  bool ExpectsAnswer(int, const Record& record, uint8_t** frame) override {
    if (record.page >= kPages) return false;
    *frame = nullptr;
    if (record.kind == kKindGrant) return record.payload_bytes == 0;
    if (record.kind != kKindData || record.payload_bytes != kPageBytes) return false;
    if (expected_ == nullptr) expected_.reset(new uint8_t[kPageBytes]);
    *frame = expected_.get();
    return true;
  }
  bool TakeAnswer(int rank, const Record& record) override {
    PM_CHECK(rank != kNoRank);
    PM_CHECK(record.kind == kKindGrant || record.kind == kKindData);
    PM_CHECK(record.payload_bytes == (record.kind == kKindData ? kPageBytes : 0));
    if (record.page == 0) return false;  // it has changed meanwhile
    expected_.reset();
    return true;
  }
  bool DescribeSlot(uint32_t, uint32_t*, uint32_t*) override { return false; }
  bool DescribeRegion(uint32_t, RegionMemory*) override { return false; }
  int HomeOf(uint32_t, uint32_t) override { return kNoRank; }
  void OnOpened(int) override {}
  void OnAccepted(int) override {}
  void OnClosed(int, int, uint32_t) override {}

 private:
  uint8_t refusals_;
  std::unique_ptr<uint8_t[]> frame_;
  std::unique_ptr<uint8_t[]> expected_;
  volatile uint32_t sum_ = 0;
};

}  // namespace
}  // namespace pagemesh

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using pagemesh::TcpConnection;
  if (size < 2) return 0;
  int ends[2];
  PM_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  const pagemesh::UniqueFd peer(ends[0]);
  TcpConnection connection(1, pagemesh::UniqueFd(ends[1]), false);
  connection.rank = (data[0] & 1) != 0 ? 0 : pagemesh::kNoRank;
  pagemesh::Client client(data[1]);
  const size_t told = (data[0] >> 1) & 0x3f;
  const size_t piece = told == 0 ? size : told;
  const bool looks = (data[0] & 0x81) == 0x81;
  uint32_t failed = 0;
  for (size_t at = 2; at < size && failed == 0;) {
    const size_t count = std::min(piece, size - at);
    const ssize_t sent = send(peer.get(), data + at, count, MSG_NOSIGNAL);
    if (sent <= 0) break;
    at += static_cast<size_t>(sent);
    if (looks) connection.TakeAnswers(&client);
    bool any = false;
    failed = connection.Receive(&client, &any);
    for (int i = 0; i < 9 && failed == 0 && connection.refused(); i++) {
      failed = connection.Deliver(&client);
    }
  }
  return 0;
}
