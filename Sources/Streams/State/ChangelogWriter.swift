import Base
import EventLog
import RecordFormat

/// Writes what every checkpoint of a task changes into its changelog, all of a checkpoint in one transaction and before it
/// counts here: what the disk holds is never ahead of the changelog. Used by the thread that writes the checkpoint.
package final class ChangelogWriter {
    private let writer: any TransactionalWriter
    private let place: TopicPartition
    private let source: String
    private let prefix: [UInt8]

    /// Whoever wrote under this name is fenced off from here on, so what stands in the changelog then is all that there will be.
    /// - Parameters:
    ///   - name: of the fold; one live fold can have it.
    ///   - place: the task's partition of the changelog.
    package convenience init(
        log: any EventLog, name: String, place: TopicPartition, identity: Digest?
    ) throws(EventLogError) {
        self.init(
            try log.transactionalWriter(named: name + ".state"), name: name, place: place, identity: identity)
    }

    package init(_ writer: any TransactionalWriter, name: String, place: TopicPartition, identity: Digest?) {
        self.writer = writer
        self.place = place
        source = StageContext.source(name)
        prefix = ChangelogRecord.prefix(identity)
    }

    deinit { writer.close() }

    /// - Returns: where the changelog goes on behind this checkpoint.
    func write(
        _ deltas: [StateDelta], inputs: [StateDatabase.InputPosition], meta: [String: String]
    ) throws(EventLogError) -> Int64 {
        let time = Instant(milliseconds: max(0, meta["now"].flatMap { Int64($0) } ?? 0))
        var number = 0
        func add(_ type: String, _ key: [UInt8], _ data: [UInt8]?, _ content: String) throws(EventLogError) {
            let event = NewEvent(
                id: String(number), source: source, type: type, time: time, key: key, contentType: content, data: data)
            number += 1
            try writer.add(event, to: place)
        }
        do {
            for delta in deltas {
                try delta.forEachInOrder { (entry) throws(EventLogError) in
                    try add(
                        ChangelogRecord.changed, ChangelogRecord.key(prefix, store: delta.store, entry),
                        entry.value.map { [UInt8]($0) }, "application/octet-stream")
                }
            }
            try add(
                ChangelogRecord.committed, prefix, ChangelogRecord.end(inputs: inputs, meta: meta), "application/json")
        } catch {
            try? writer.abort()
            throw error
        }
        var next: Int64 = 0
        try writer.commit(group: "", consumed: [:]) { (offsets) throws(EventLogError) in
            next = (offsets.last ?? -1) + 1
        }
        return next
    }
}
