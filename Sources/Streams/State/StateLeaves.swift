import Base

/// The digest of a store: a Merkle tree over 256 buckets of which the leaves are the entries, kept up by taking the leaves of
/// what changed away and adding others. A bucket's digest is that of its leaves in their order, so it does not depend on the
/// order of changes; of each leaf its 32 bytes are kept, and nothing of the entry.
struct StateLeaves {
    static let bucketCount = 256

    private struct Bucket {
        /// Sorted.
        var leaves: [Digest] = []
        var added: [Digest] = []
        var gone: [Digest] = []
        var digest = Digest.zero

        var limit: Int { max(StateLeaves.waiting, leaves.count) }
    }

    /// Leaves wait to be sorted in until the digest is asked for, up to so many and as many as there are.
    private static let waiting = 64

    /// Every leaf that may go is in here. While what is on the disk is still read, some are not.
    var isComplete = true
    private var buckets: [Bucket] = Array(repeating: Bucket(), count: bucketCount)

    static func bucket(of hash: UInt64) -> Int { Int(hash & 255) }

    /// A leaf instead of another; `.zero` stands for none.
    mutating func replace(_ old: Digest, with new: Digest, in bucket: Int) {
        guard old != new else { return }
        if old != .zero { buckets[bucket].gone.append(old) }
        if new != .zero { buckets[bucket].added.append(new) }
        // Keys that come and go for a long time would pile up.
        if isComplete, buckets[bucket].added.count + buckets[bucket].gone.count > buckets[bucket].limit {
            Self.settle(&buckets[bucket])
        }
    }

    /// Takes in all of another's.
    mutating func merge(_ other: StateLeaves) {
        for index in buckets.indices {
            buckets[index].added += other.buckets[index].leaves + other.buckets[index].added
            buckets[index].gone += other.buckets[index].gone
        }
    }

    /// Of each bucket.
    mutating func digests() -> [Digest] {
        for index in buckets.indices { Self.settle(&buckets[index]) }
        return buckets.map(\.digest)
    }

    mutating func root(of store: String) -> Digest {
        for index in buckets.indices { Self.settle(&buckets[index]) }
        return withUnsafeTemporaryAllocation(byteCount: Self.bucketCount * Digest.byteCount, alignment: 8) { raw in
            for index in buckets.indices { buckets[index].digest.store(into: raw, at: index * Digest.byteCount) }
            var stream = DigestStream()
            stream.update(store)
            stream.update(UnsafeRawBufferPointer(raw))
            return stream.finish()
        }
    }

    private static func settle(_ bucket: inout Bucket) {
        guard !bucket.added.isEmpty || !bucket.gone.isEmpty else { return }
        bucket.added.sort()
        bucket.gone.sort()
        var merged: [Digest] = []
        merged.reserveCapacity(bucket.leaves.count + bucket.added.count)
        // What came and went again is in both lists, so both are gone through together.
        var (old, new, gone) = (0, 0, 0)
        while old < bucket.leaves.count || new < bucket.added.count {
            let next: Digest
            if new == bucket.added.count || (old < bucket.leaves.count && bucket.leaves[old] <= bucket.added[new]) {
                next = bucket.leaves[old]
                old += 1
            } else {
                next = bucket.added[new]
                new += 1
            }
            if gone < bucket.gone.count, bucket.gone[gone] == next { gone += 1 } else { merged.append(next) }
        }
        bucket.leaves = merged
        bucket.added = []
        bucket.gone = []
        guard !merged.isEmpty else {
            bucket.digest = .zero
            return
        }
        let size = Digest.byteCount
        bucket.digest = withUnsafeTemporaryAllocation(byteCount: merged.count * size, alignment: 8) { raw in
            for (index, leaf) in merged.enumerated() { leaf.store(into: raw, at: index * size) }
            return Digest.of(UnsafeRawBufferPointer(raw))
        }
    }
}
