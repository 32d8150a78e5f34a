import Base
import RecordFormat

extension EmbeddedLog {
    /// What the sequencer decided about one append.
    private struct Plan {
        var ticket = 0
        var firstSequence: UInt64 = 0
        var receipts: [EventReceipt] = []
        /// Per batch: partition, base offset, indices of the append's events.
        var batches: [(partition: TopicPartition, baseOffset: Int64, events: [Int])] = []
        var interleave: [(batch: Int, count: Int)] = []
        var identifiers: [(UInt64, UInt64, partition: TopicPartition, offset: Int64)] = []
        var cost = 0
    }

    package func append(
        _ append: LogAppend, completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void
    ) {
        let plan: Plan
        do {
            try check(append)
            plan = try sequencer.withLock { state throws(EventLogError) in try decide(append, &state) }
        } catch {
            completion(.failure(error))
            return
        }
        var frame: [UInt8] = []
        if !plan.batches.isEmpty {
            let batches = plan.batches.map { batch in
                var builder = RecordBatchBuilder()
                for index in batch.events { builder.append(append.events[index].event) }
                var bytes = builder.finish()
                RecordBatchLayout.stamp(&bytes, baseOffset: batch.baseOffset)
                return (
                    partition: batch.partition, baseOffset: batch.baseOffset, count: batch.events.count, bytes: bytes
                )
            }
            frame = LogFrame.encode(
                firstSequence: plan.firstSequence, principal: append.principal, keyID: "", batches: batches,
                interleave: plan.interleave)
        }
        let ready = Ready(
            frame: frame, firstSequence: plan.firstSequence,
            eventCount: plan.batches.reduce(0) { $0 + $1.events.count }, identifiers: plan.identifiers,
            receipt: AppendReceipt(events: plan.receipts, durability: "synced"), cost: plan.cost, completion: completion
        )
        // The writer may have stopped since the offsets were assigned; then nobody would take the frame any more.
        let stopped: EventLogError? = sequencer.update { state in
            if let stopped = state.stopped { return stopped }
            state.ready[plan.ticket] = ready
            return nil
        }
        if let stopped { completion(.failure(stopped)) }
    }

    private func check(_ append: LogAppend) throws(EventLogError) {
        guard !options.readOnly else {
            throw EventLogError("read-only", "the log in \(directory) was opened for reading only")
        }
        var total = 0
        for (topic, _, event) in append.events {
            let size = event.data?.count ?? 0
            guard size <= Limits.eventData else {
                throw EventLogError(
                    "event-too-large",
                    "an event of '\(topic)' has \(size) bytes of data; at most \(Limits.eventData) are taken")
            }
            guard !event.id.isEmpty, event.id.utf8.count <= Limits.nameLength else {
                throw EventLogError(
                    "bad-id",
                    "an event of '\(topic)' needs an id of 1 to \(Limits.nameLength) bytes, not '\(event.id.prefix(40))'"
                )
            }
            total += size + 256
        }
        guard !append.events.isEmpty, total <= LogFrame.maximumSize / 2 else {
            throw EventLogError(
                "append-too-large",
                "one append takes 1 event or more and at most \(LogFrame.maximumSize / 2) bytes; this one has \(append.events.count) events and \(total) bytes"
            )
        }
    }

    private func decide(_ append: LogAppend, _ state: inout Sequencer) throws(EventLogError) -> Plan {
        if let stopped = state.stopped { throw stopped }
        guard !state.closing else {
            throw EventLogError("log-stopped", "the log is closing", fault: .world, retriable: true)
        }
        guard !append.refusable || state.pendingBytes < Limits.pendingAppends else {
            throw EventLogError(
                "log-saturated",
                "\(state.pendingBytes) bytes wait for the disk, the limit is \(Limits.pendingAppends); try again",
                fault: .world,
                retriable: true)
        }
        let targets = try targets(of: append, &state)
        var plan = Plan()
        plan.firstSequence = state.nextSequence
        plan.receipts.reserveCapacity(append.events.count)
        plan.identifiers.reserveCapacity(append.events.count)
        var batchOf: [Int: Int] = [:]
        for (index, (topic, _, event)) in append.events.enumerated() {
            let number = targets[index]
            let partition = state.partitions[number]
            let offset = state.nextOffsets[number]
            let hash = IdentifierTable.hash(topic: state.topicHashes[topic] ?? 0, source: event.source, id: event.id)
            if let known = state.identifiers.insert(hash, partition: UInt32(number), offset: offset) {
                let original = state.partitions[Int(known.0)]
                let position = Position(
                    topic: original.topic, partition: original.partition, offset: known.1, sequence: nil)
                plan.receipts.append(EventReceipt(position: position, duplicate: true))
                continue
            }
            state.nextOffsets[number] += 1
            let batch: Int
            if let known = batchOf[number] {
                batch = known
            } else {
                batch = plan.batches.count
                batchOf[number] = batch
                plan.batches.append((partition, offset, []))
            }
            plan.batches[batch].events.append(index)
            if let last = plan.interleave.last, last.batch == batch {
                plan.interleave[plan.interleave.count - 1].count += 1
            } else {
                plan.interleave.append((batch, 1))
            }
            plan.identifiers.append((hash.0, hash.1, partition, offset))
            let position = Position(
                topic: topic, partition: partition.partition, offset: offset, sequence: state.nextSequence)
            plan.receipts.append(EventReceipt(position: position, duplicate: false))
            state.nextSequence += 1
            plan.cost += (event.data?.count ?? 0) + 256
        }
        plan.ticket = state.nextTicket
        state.nextTicket += 1
        state.pendingBytes += plan.cost
        return plan
    }

    /// The partition of every event. Everything that can be refused is refused before anything is assigned.
    private func targets(of append: LogAppend, _ state: inout Sequencer) throws(EventLogError) -> [Int] {
        var targets: [Int] = []
        targets.reserveCapacity(append.events.count)
        for (topic, partition, event) in append.events {
            guard let layout = state.layouts[topic] else {
                throw EventLogError(
                    "unknown-topic", "there is no topic '\(topic)'; declare it in a workspace and apply that")
            }
            let chosen =
                partition
                ?? (layout.partitions == 1
                    ? 0 : murmur2Partition(event.key ?? [UInt8](event.id.utf8), partitions: layout.partitions))
            guard chosen >= 0, chosen < layout.partitions else {
                throw EventLogError(
                    "unknown-partition",
                    "the topic '\(topic)' has partitions 0 to \(layout.partitions - 1), not \(chosen)")
            }
            targets.append(state.number(of: TopicPartition(topic, chosen)))
        }
        return targets
    }
}
