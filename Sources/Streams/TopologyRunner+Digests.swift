import Base

/// What proves that two folds of the same events came to the same state.
extension TopologyRunner {
    /// State digests are recorded at every UTC midnight of stream time, whatever the checkpoint interval.
    func cutIfDue(before time: Instant) throws {
        let day = (time + -1).day
        guard recordsDigests, context.now != .distantPast else { return }
        if lastCut == .min { lastCut = context.now.day }
        guard day > lastCut else { return }
        lastCut = day
        let cut = Instant(day: day)
        let digests = stateDigests()
        var members: [String: JSON] = [:]
        for (name, digest) in digests { members[name] = .string(digest.hex) }
        let saved = context.now
        context.now = max(context.now, cut)
        context.emit(
            topic: topology.side.digests, type: "processor.digest", id: "digest:\(label):\(cut.date)",
            data: JSON.object([
                "topology": .string(topology.name), "cut": .string(cut.description), "stores": .object(members),
            ]).canonical, source: topology.name)
        context.now = saved
        try deliver()
    }

    /// Where a topic goes on in which the topology writes.
    package func emitted(_ topic: String) -> Int64 { context.emittedOffsets[topic] ?? 0 }

    /// How far a runner has come. Two that have come equally far in the same log have the same state.
    package struct Mark: Equatable, Sendable {
        let folded: Int64
        let emitted: Int64
        let now: Instant
        let timers: Int
    }

    package var mark: Mark {
        Mark(folded: folded, emitted: emittedCount, now: context.now, timers: context.timers.store.count)
    }

    /// Of every store by name, its buckets' digests.
    package func bucketDigests() -> [String: [Digest]] {
        Dictionary(digested.map { ($0.name, $0.bucketDigests()) }) { $1 }
    }

    /// The keys of a store's bucket, each with its leaf.
    package func leaves(of store: String, inBucket bucket: Int) -> [(key: String, leaf: Digest)] {
        stores.first { $0.name == store }?.leaves(inBucket: bucket) ?? []
    }

    /// How much of what is not in turn was read already depends on when it was read.
    private var digested: [any AnyStateStore] { stores.filter { $0 !== waiting.store } }

    /// Digest of every store, by name.
    package func stateDigests() -> [(name: String, digest: Digest)] {
        digested.map { ($0.name, $0.digest()) }.sorted { $0.0 < $1.0 }
    }
}
