import Base
import EventLog
import RecordFormat

/// Appends emitted events to the log, and checks that each stands where the fold said it would.
package final class LogSink: DerivedSink {
    /// Events of one append.
    static let batchEvents = 1000

    private let pipeline: AppendPipeline
    private let principal: String
    private var pending: [(topic: String, partition: Int?, event: NewEvent)] = []
    private var offsets: [Int64] = []

    package init(log: any EventLog, principal: String) {
        pipeline = AppendPipeline(log: log)
        self.principal = principal
    }

    package func take(_ event: DerivedEvent) throws {
        pending.append((event.topic, 0, event.event))
        offsets.append(event.offset)
        if pending.count >= LogSink.batchEvents { try send() }
    }

    package func sliceEnded() throws {}

    private func send() throws {
        guard !pending.isEmpty else { return }
        let append = LogAppend(principal: principal, events: pending)
        let expected = offsets
        pending.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
        try pipeline.send(append) { receipt in
            for (event, offset) in zip(receipt.events, expected) where event.position.offset != offset {
                return EventLogError(
                    "foreign-writer",
                    "a derived event stands at \(event.position) and not at offset \(offset): something else writes to that topic, or the topology changed since",
                    fault: .world)
            }
            return nil
        }
    }

    package func flush() throws {
        try send()
        try pipeline.drain()
    }
}
