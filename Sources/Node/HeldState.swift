import Base
import Streams

/// A part of a store's digest, whose keys somebody asks for.
package struct StateBucket: Sendable {
    let store: String
    let number: Int
}

/// State as somebody has it, and how far it was folded.
package struct HeldState: Sendable {
    let mark: TopologyRunner.Mark
    let digests: [(name: String, digest: Digest)]
    /// By store.
    private let buckets: [String: [Digest]]
    /// Of the bucket that was asked for.
    private let leaves: [(key: String, leaf: Digest)]

    /// Fails where a part of it cannot be read: what is missing is no difference.
    package init(_ runner: TopologyRunner, bucket: StateBucket? = nil) throws {
        mark = runner.mark
        digests = runner.stateDigests()
        buckets = runner.bucketDigests()
        leaves = bucket.map { runner.leaves(of: $0.store, inBucket: $0.number) } ?? []
        try runner.requireState()
    }

    /// Where it differs first from the state in service, down the tree of digests: the store, the bucket, the key; nil where both
    /// are one.
    /// - Parameters:
    ///   - runner: that it is of.
    ///   - ask: asks once more for the other one; it may have gone on meanwhile, and then the bucket is as far as it goes.
    func difference(
        from other: HeldState, _ runner: TopologyRunner, ask: (StateBucket?) throws -> HeldState?
    ) throws -> (reason: String, facts: [(String, JSON)])? {
        guard let store = zip(digests, other.digests).first(where: { $0 != $1 })?.0.name else { return nil }
        let reason = "the state of '\(store)' in service is not what the log gives"
        let (ours, theirs) = (buckets[store] ?? [], other.buckets[store] ?? [])
        guard let number = zip(ours, theirs).enumerated().first(where: { $1.0 != $1.1 })?.offset else {
            return (reason, [])
        }
        let bucket = StateBucket(store: store, number: number)
        var facts: [String: JSON] = ["store": .string(store), "bucket": .int(Int64(number))]
        let held = try ask(bucket)
        if let held, held.mark == mark {
            let mine = Dictionary(runner.leaves(of: store, inBucket: number).map { (Key($0.key), $0.leaf) }) { $1 }
            let its = Dictionary(held.leaves.map { (Key($0.key), $0.leaf) }) { $1 }
            let keys = Set(mine.keys).union(its.keys).filter { mine[$0] != its[$0] }.sorted()
            if let key = keys.first {
                facts["key"] = .string(key.text)
                facts["keysOfBucket"] = .int(Int64(keys.count))
                let what =
                    its[key] == nil ? "is missing" : (mine[key] == nil ? "should not be there" : "has another value")
                return ("\(reason): the key '\(key.text)' \(what)", [("firstDifference", .object(facts))])
            }
        }
        return (reason, [("firstDifference", .object(facts))])
    }

    /// By its bytes.
    private struct Key: Hashable, Comparable {
        let bytes: [UInt8]
        init(_ text: String) { bytes = [UInt8](text.utf8) }
        var text: String { String(decoding: bytes, as: UTF8.self) }
        static func < (left: Key, right: Key) -> Bool { left.bytes.lexicographicallyPrecedes(right.bytes) }
    }
}
