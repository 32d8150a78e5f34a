import Base
import EventLog

/// Saying how far the fold is, for folds that read what it writes.
extension TopologyRunner {
    /// Slices between two statements while there is work: at its end, and wherever it waits, one is made anyway.
    static let progressSlices = 16

    /// Says how far it is, where that is further than what was said last.
    func noteProgress() throws {
        guard let progress = progress(), progress.through > saidThrough || (progress.isFinished && !saidFinished) else {
            return
        }
        saidThrough = progress.through
        saidFinished = progress.isFinished
        try sink.say(
            DerivedEvent(
                topic: topology.side.progress, partition: context.partition, offset: 0,
                event: progress.event(label: label, emitted: emittedCount)))
    }

    /// What is emitted from now on is later than this; nil before anything is known.
    private func progress() -> FoldProgress? {
        let choice = choose()
        var through = choice.bounded ? choice.bound.time : Instant.distantFuture
        if choice.best >= 0 { through = min(through, choice.place.timersBefore) }
        if through == .distantFuture {
            // Nothing waits and nobody promises more. Whoever reads this must wait all the same: what wakes an idle source
            // is in its log before what this fold makes of it.
            through = inputs.map(\.completeThrough).max() ?? .distantPast
        }
        if let timer = context.timers.peek() { through = min(through, timer.time + -1) }
        let isFinished =
            !choice.bounded && choice.best < 0
            && inputs.allSatisfy { ($0.role != .source && $0.role != .derived) || $0.source == .finished }
        if !Instant.written.contains(through) {
            guard isFinished else { return nil }
            through = Instant.written.lowerBound
        }
        var ends: [String: Int64] = [:]
        for topic in outputs { ends[topic] = context.emittedOffsets[topic] ?? 0 }
        return FoldProgress(through: through, isFinished: isFinished, ends: ends)
    }
}
