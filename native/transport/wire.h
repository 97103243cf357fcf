// What travels between members: records of fixed size, some followed by a payload. All words are
// little-endian, like every machine that pagemesh runs on. lib/protocol/messages.ts gives the kinds
// and words their names; a test holds the two files equal.
#ifndef PAGEMESH_TRANSPORT_WIRE_H_
#define PAGEMESH_TRANSPORT_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pagemesh {

constexpr uint32_t kMaxMembers = 32;
constexpr int kNoRank = -1;

struct Record {
  uint32_t payload_bytes;  // what follows the record
  uint32_t kind;
  uint32_t view;  // the sender's view number
  uint32_t region;
  uint32_t page;
  uint32_t words[11];  // by kind
};
static_assert(sizeof(Record) == 64, "records are one cache line on every machine");
static_assert(offsetof(Record, words) == 20, "words 5 to 15");
static_assert(std::is_trivially_copyable<Record>::value, "records are copied as bytes");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian");

// The kind tells what may follow: nothing, one page into its frame, or a blob for TypeScript.
constexpr uint32_t kFirstPageKind = 0x40;
constexpr uint32_t kFirstBlobKind = 0x80;
constexpr uint32_t kLastKind = 0xff;

// Kinds that native code itself writes or looks at.
constexpr uint32_t kKindReadRequest = 1;
constexpr uint32_t kKindWriteRequest = 2;
constexpr uint32_t kKindUpgradeRequest = 3;
constexpr uint32_t kKindRecallRead = 4;
constexpr uint32_t kKindRecallWrite = 5;
constexpr uint32_t kKindGrant = 8;
constexpr uint32_t kKindDiscard = 11;
constexpr uint32_t kKindTokenPassed = 25;
constexpr uint32_t kKindBarrierArrive = 18;
constexpr uint32_t kKindData = 0x40;
constexpr uint32_t kKindDataExclusive = 0x41;
constexpr uint32_t kKindWriteBack = 0x42;
constexpr uint32_t kKindCluster = 0x80;

inline bool IsRequest(uint32_t kind) {
  return kind == kKindReadRequest || kind == kKindWriteRequest || kind == kKindUpgradeRequest;
}
inline bool IsPage(uint32_t kind) { return kind >= kFirstPageKind && kind < kFirstBlobKind; }

// The words of a token that is passed on: the lock's key, the request that gets it, and its ticket.
enum TokenWord { kTokenKeyLow, kTokenKeyHigh, kTokenRequest, kTokenTicket };

// Over links, the word of a request that names the slot of the thread that looks for the answer
// itself, plus one. The protocol uses words 0 and 1.
constexpr int kAnswerSlot = 8;

constexpr uint32_t kMaxBlobBytes = 64 * 1024;
// Before a connection is authenticated it may send cluster frames of this size and nothing else.
constexpr uint32_t kMaxStrangerBlobBytes = 16 * 1024;

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_WIRE_H_
