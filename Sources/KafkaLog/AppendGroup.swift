import Base
import EventLog
import Foundation
import RecordFormat

/// Group commit on a cluster: every append that waits rides in one transaction, so each is there as a whole or not at
/// all, and many writers share the cost of one commit.
final class AppendGroup: Sendable {
    /// Events of one transaction.
    static let events = 20_000
    /// Times that a group is done again after the brokers dropped it, and how long that may go on, in seconds.
    static let attempts = 4
    private let patience: Double

    private struct Waiting: Sendable {
        let append: LogAppend
        let places: [TopicPartition]
        let cost: Int
        let completion: @Sendable (Result<AppendReceipt, EventLogError>) -> Void
    }

    private struct Queue {
        var waiting: [Waiting] = []
        var bytes = 0
        var closing = false
        var stopped: EventLogError?
    }

    private let queue = Monitor(Queue())
    private let make: @Sendable () throws(EventLogError) -> KafkaTransaction
    private let thread = Monitor<BlockingThread?>(nil)
    private let clients = Monitor<KafkaClient.Report?>(nil)
    private let committed = Monitor((good: 0, again: 0, events: 0))

    /// - Parameter make: opens the transactional producer; again after one that is finished.
    init(
        patience: Double, make: @escaping @Sendable () throws(EventLogError) -> KafkaTransaction
    ) throws(EventLogError) {
        self.make = make
        self.patience = patience
        let first = Monitor<KafkaTransaction?>(try make())
        thread.withLock {
            $0 = BlockingThread(name: "kafka-append") { [self] in
                guard
                    let transaction = first.withLock({ box in
                        defer { box = nil }
                        return box
                    })
                else { return }
                run(transaction)
            }
        }
    }

    var stopped: EventLogError? { queue.withLock { $0.stopped } }
    var statistics: (good: Int, again: Int, events: Int) { committed.withLock { $0 } }
    var report: KafkaClient.Report? { clients.withLock { $0 } }

    func append(
        _ append: LogAppend, to places: [TopicPartition],
        completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void
    ) {
        let cost = append.events.reduce(0) { $0 + ($1.event.data?.count ?? 0) + 512 }
        let refusal: EventLogError? = queue.update { state in
            if let stopped = state.stopped { return stopped }
            if state.closing {
                return EventLogError("log-stopped", "the log is closing", fault: .world, retriable: true)
            }
            if append.refusable, state.bytes >= Limits.pendingAppends {
                return EventLogError(
                    "log-saturated",
                    "\(state.bytes) bytes wait for the brokers, the limit is \(Limits.pendingAppends); try again",
                    fault: .world, retriable: true)
            }
            state.waiting.append(Waiting(append: append, places: places, cost: cost, completion: completion))
            state.bytes += cost
            return nil
        }
        if let refusal { completion(.failure(refusal)) }
    }

    /// Answers the publishers of whose events none is under way; what a fold has waiting goes on waiting.
    func refuseWaiting(_ error: EventLogError) {
        let refused: [Waiting] = queue.update { state in
            let refused = state.waiting.filter(\.append.refusable)
            state.waiting.removeAll(where: \.append.refusable)
            state.bytes -= refused.reduce(0) { $0 + $1.cost }
            return refused
        }
        for waiting in refused { waiting.completion(.failure(error)) }
    }

    private func next() -> [Waiting]? {
        let group: [Waiting]? = queue.wait { state in
            guard !state.waiting.isEmpty else { return state.closing ? [] : nil }
            var count = 0
            var events = 0
            while count < state.waiting.count,
                count == 0 || events + state.waiting[count].append.events.count <= Self.events
            {
                events += state.waiting[count].append.events.count
                count += 1
            }
            defer { state.waiting.removeFirst(count) }
            return Array(state.waiting[..<count])
        }
        return group.flatMap { $0.isEmpty ? nil : $0 }
    }

    private func run(_ first: KafkaTransaction) {
        // None after a client that is finished, until the brokers let the next one begin.
        var transaction: KafkaTransaction? = first
        while let group = next() {
            answer(group, &transaction)
            queue.update { $0.bytes -= group.reduce(0) { $0 + $1.cost } }
            if let report = transaction?.report.report { clients.withLock { $0 = report } }
        }
        transaction?.close()
    }

    private func answer(_ group: [Waiting], _ transaction: inout KafkaTransaction?) {
        if let stopped {
            for waiting in group { waiting.completion(.failure(stopped)) }
            return
        }
        do {
            let offsets = try commit(group, &transaction)
            var next = 0
            for waiting in group {
                let receipts = waiting.places.map { place in
                    defer { next += 1 }
                    return EventReceipt(
                        position: Position(
                            topic: place.topic, partition: place.partition, offset: offsets[next], sequence: nil),
                        duplicate: false)
                }
                waiting.completion(.success(AppendReceipt(events: receipts, durability: .replicated)))
            }
        } catch {
            guard group.count > 1, error.fault == .caller else {
                for waiting in group { waiting.completion(.failure(error)) }
                return
            }
            // One of them cannot be taken; the others must not suffer for it.
            for waiting in group { answer([waiting], &transaction) }
        }
    }

    private func commit(_ group: [Waiting], _ current: inout KafkaTransaction?) throws(EventLogError) -> [Int64] {
        let deadline = Date(timeIntervalSinceNow: patience)
        var attempt = 1
        while true {
            do {
                let transaction: KafkaTransaction
                if let current {
                    transaction = current
                } else {
                    transaction = try make()
                    current = transaction
                }
                return try commit(group, transaction)
            } catch {
                committed.withLock { $0.again += 1 }
                if error.code == "producer-fenced" || error.code == "log-shrunk" {
                    stop(error)
                    throw error
                }
                let finished = current?.fatal != nil || error.kafka?.kind == .fatal
                if finished || current?.isStuck == true || error.code == "outcome-unknown" {
                    // The next one of the same name has the brokers decide what this one has left open.
                    current?.close()
                    current = nil
                }
                let again = error.retriable || finished
                guard again, error.code != "outcome-unknown", attempt < AppendGroup.attempts,
                    deadline.timeIntervalSinceNow > 0
                else { throw error }
                attempt += 1
            }
        }
    }

    private func commit(_ group: [Waiting], _ transaction: KafkaTransaction) throws(EventLogError) -> [Int64] {
        var result: [Int64] = []
        do {
            for waiting in group {
                for (event, place) in zip(waiting.append.events, waiting.places) {
                    try transaction.add(
                        event.event.with(KafkaRecord.principalHeader, waiting.append.principal), to: place)
                }
            }
        } catch {
            throw transaction.dropped(error, asked: false)
        }
        try transaction.commit(group: "", consumed: [:]) { result = $0 }
        committed.withLock {
            $0.good += 1
            $0.events += result.count
        }
        return result
    }

    private func stop(_ error: EventLogError) { queue.update { $0.stopped = $0.stopped ?? error } }

    func close() {
        queue.update { $0.closing = true }
        thread.withLock {
            $0?.join()
            $0 = nil
        }
    }
}
