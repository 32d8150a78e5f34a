import Base

/// The Merkle tree over chunks, as RFC 6962 (2.1) builds it: a leaf is the hash of 0 and the chunk's digest, a node the hash
/// of 1 and its two sides, and the left side is the largest power of two that leaves something for the right.
package enum ChunkTree {
    package static func root(_ digests: [Digest]) -> Digest { root(digests[...]) }

    private static func root(_ digests: ArraySlice<Digest>) -> Digest {
        switch digests.count {
        case 0: return Digest.of([])
        case 1: return Digest.of([0] + (digests.first?.bytes ?? []))
        default:
            var left = 1
            while left * 2 < digests.count { left *= 2 }
            let middle = digests.startIndex + left
            return Digest.of([1] + root(digests[..<middle]).bytes + root(digests[middle...]).bytes)
        }
    }
}
