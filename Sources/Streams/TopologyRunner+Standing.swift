import Base

/// How far a runner is, for those who stand beside it.
extension TopologyRunner {
    /// Whether it has folded everything that stood in the log when it began and is in turn: its answers are as good as those of
    /// one that ran all along. A topic of which nobody has said yet how complete it is keeps it waiting.
    package var isAbreast: Bool {
        guard hasCaughtUp, hasReachedAims || isDrained else { return false }
        let isUnsaid = zip(inputs, aims).contains { $0.role == .source && $0.source == .unstarted && $1 > 0 }
        guard !isUnsaid else { return false }
        let choice = choose()
        return !(choice.waits && choice.place < choice.bound)
    }

    /// Events that were read and wait for their turn.
    package var waitingCount: Int { waiting.store.count }

    /// Of a topic whose events wait for their turn: up to when all of them were folded; nil for one whose events do not wait.
    package func released(_ topic: String) -> Instant? {
        let mine = inputs.indices.filter { inputs[$0].partition.topic == topic && inputs[$0].sorts }
        guard !mine.isEmpty else { return nil }
        return mine.map { waiting.released[$0]?.time ?? .distantPast }.min()
    }
}
