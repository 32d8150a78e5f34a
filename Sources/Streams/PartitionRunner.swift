import Base
import EventLog
import Foundation
import GRDB
import RecordFormat

/// A view that is fed by partition: in offset order, at once. It writes its rows in the transaction that also holds the
/// positions, so each event counts exactly once.
package protocol Projection: AnyObject {
    var name: String { get }
    var inputs: [String] { get }
    /// Creates tables; called in a transaction at every start.
    func prepare(_ database: Database) throws
    func apply(_ event: StoredEvent, topic: String, partition: Int, document: JSONDocument, _ database: Database) throws
}

/// Feeds projections by partition into one SQLite file.
package final class PartitionRunner {
    static let fetchBytes = 1 << 20

    private let log: any EventLog
    private let queue: any DatabaseWriter
    private let projections: [any Projection]
    private var cursors: [(projection: Int, partition: TopicPartition, next: Int64)] = []
    private let document = JSONDocument()
    package private(set) var applied: Int64 = 0

    package init(log: any EventLog, queue: any DatabaseWriter, projections: [any Projection]) throws {
        self.log = log
        self.queue = queue
        self.projections = projections
        var saved: [String: Int64] = [:]
        try queue.write { database in
            try database.execute(
                sql:
                    "CREATE TABLE IF NOT EXISTS projection_positions(name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT"
            )
            for projection in projections { try projection.prepare(database) }
            for row in try Row.fetchAll(database, sql: "SELECT name, next FROM projection_positions") {
                saved[row[0]] = row[1]
            }
        }
        for (index, projection) in projections.enumerated() {
            for topic in projection.inputs {
                for partition in 0..<log.partitions(of: topic) {
                    let place = TopicPartition(topic, partition)
                    cursors.append((index, place, saved["\(projection.name)|\(place)"] ?? 0))
                }
            }
        }
    }

    /// Applies one fetch of every input. False when all are at the end.
    package func runSlice() throws -> Bool {
        var worked = false
        for index in cursors.indices {
            let cursor = cursors[index]
            let batches = try log.read(cursor.partition, from: cursor.next, maxBytes: PartitionRunner.fetchBytes)
            guard let last = batches.last else { continue }
            worked = true
            let next = last.header.lastOffset + 1
            let projection = projections[cursor.projection]
            try queue.write { database in
                for batch in batches {
                    for record in batch.records.indices where batch.records[record].offset >= cursor.next {
                        let event = StoredEvent(batch: batch, index: record)
                        guard !event.isProgress else { continue }
                        let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
                        guard parsed == true else { continue }
                        try projection.apply(
                            event, topic: cursor.partition.topic, partition: cursor.partition.partition,
                            document: document,
                            database)
                        applied += 1
                    }
                }
                try database.cachedStatement(sql: "INSERT OR REPLACE INTO projection_positions VALUES(?, ?)")
                    .execute(arguments: ["\(projection.name)|\(cursor.partition)", next])
            }
            cursors[index].next = next
        }
        return worked
    }

    package var positions: [(TopicPartition, Int64)] { cursors.map { ($0.partition, $0.next) } }
}
