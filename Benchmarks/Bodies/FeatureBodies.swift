import Base
import Catalog
import Datasets
import EventLog
import Features
import Foundation
import Node
import RecordFormat
import Streams

/// What the feature store and datasets cost: joins over columns and from the log, reads, chunks.
package enum FeatureBodies {
    /// Departures with the windows of the flights workspace, and the newest value of each airport.
    private static let views = #"""
        [{"name": "origin_departures", "topic": "flights.departed", "key": "data.origin", "aggregates": [
            {"name": "mean_1h", "function": "mean", "of": "data.dep_delay", "window": "1h"},
            {"name": "n_1h", "function": "count", "window": "1h"},
            {"name": "mean_3h", "function": "mean", "of": "data.dep_delay", "window": "3h"},
            {"name": "n_3h", "function": "count", "window": "3h"}]},
         {"name": "carrier_departures", "topic": "flights.departed", "key": "data.carrier", "aggregates": [
            {"name": "mean_3h", "function": "mean", "of": "data.dep_delay", "window": "3h"},
            {"name": "mean_24h", "function": "mean", "of": "data.dep_delay", "window": "24h"}]},
         {"name": "latest", "topic": "flights.departed", "key": "data.origin", "latest": {"delay": "data.dep_delay"}}]
        """#

    package static func catalog() throws -> FeatureCatalog {
        let list = try JSON(parsing: [UInt8](views.utf8)).array ?? []
        let views = try list.map {
            try FeatureView(Definition(kind: FeatureView.kind, name: $0["name"]?.string ?? "", body: $0))
        }
        return FeatureCatalog(views: views, entities: [], services: [], versions: [:])
    }

    /// Rows that ask of every event itself, a thousandth of a second later.
    private static func prepared(_ payloads: [[UInt8]], _ features: [String]) throws -> (PointInTimeJoin, JoinRows) {
        var join = PointInTimeJoin(plan: try catalog().plan(service: nil, features: features), rule: .known)
        var reader = join.reader(of: "flights.departed")
        var rows = JoinRows()
        let document = JSONDocument()
        (rows.keys["origin"], rows.keys["carrier"]) = ([], [])
        for (number, payload) in payloads.enumerated() {
            try payload.withUnsafeBytes { try document.parse($0) }
            let time =
                document.member(0, "time").flatMap { document.string($0) }.flatMap { Instant($0) } ?? .distantPast
            reader.add(document, time: time, place: UInt64(number * 2), knownTime: nil, position: "")
            rows.times.append(time.milliseconds + 1)
            rows.places.append(UInt64(number * 2 + 1))
            for name in ["origin", "carrier"] {
                rows.keys[name]?.append(document.member(0, JSONKey(name)).flatMap { document.string($0) })
            }
        }
        join.take(reader)
        return (join, rows)
    }

    /// Point-in-time joins over columns: rows a second, and the sum of what was found.
    package static func join(
        _ payloads: [[UInt8]], features: [String]
    ) throws -> (rows: Int, perSecond: Double, found: Double) {
        let (join, rows) = try prepared(payloads, features)
        var columns: [FeatureColumn] = []
        let seconds = try LogBodies.seconds { columns = try join.join(rows).columns }
        let found = columns.reduce(0) { $0 + $1.values.reduce(0) { $1.isNaN ? $0 : $0 + $1 } }
        return (rows.times.count, Double(rows.times.count) / seconds, found)
    }

    /// A dataset of a played directory, from its log: rows a second, and seconds of the same with what is there already.
    package static func dataset(
        _ data: String, topics: String, request: JSON
    ) throws -> (rows: Int64, perSecond: Double) {
        let node = try Node(NodeConfiguration(dataDirectory: data, platformTopics: topics))
        defer { node.stop() }
        var made: JSON = .null
        let seconds = try LogBodies.seconds { made = try node.createDataset(request) }
        let rows = made["dataset"]?["rows"]?.int ?? 0
        return (rows, Double(rows) / seconds)
    }

    /// Cutting into chunks and hashing each: bytes a second.
    package static func chunk(_ bytes: [UInt8]) -> (chunks: Int, perSecond: Double) {
        var digests: [Digest] = []
        let seconds = LogBodies.seconds {
            bytes.withUnsafeBytes { raw in
                for range in ContentChunker.chunks(raw) {
                    digests.append(Digest.of(UnsafeRawBufferPointer(rebasing: raw[range])))
                }
            }
        }
        return (digests.count, Double(bytes.count) / seconds)
    }

    /// Keeping a table and then the same with a run of changed rows: the share of bytes that the second wrote.
    package static func newVersion(_ directory: String, rows: Int, changed: Int) throws -> Double {
        let store = try ChunkStore(DiskVolume(directory))
        var random = SeededRandom(seed: 1)
        var values = (0..<rows).map { _ in Double.random(in: 0...1, using: &random) }
        func table() -> DatasetTable {
            DatasetTable(columns: [
                DatasetColumn(name: "id", values: .integers((0..<Int64(rows)).map { $0 })),
                DatasetColumn(name: "value", values: .doubles(values)),
                DatasetColumn(name: "other", values: .doubles(values.map { $0 * 3 })),
            ])
        }
        _ = try store.keep(table())
        let first = store.statistics.written
        for row in rows / 2..<rows / 2 + changed { values[row] += 1 }
        _ = try store.keep(table())
        return Double(store.statistics.written - first) / Double(first)
    }

    /// Reads of one key and five features in process, on a stage that has folded the payloads: microseconds each.
    package static func read(_ payloads: [[UInt8]], reads: Int, log: any EventLog) throws -> (
        microseconds: Double, found: Int
    ) {
        let catalog = try catalog()
        let names = ["origin_departures", "latest:delay"]
        let plan = try catalog.plan(service: nil, features: names)
        let stage = FeatureStage(views: catalog.views.values.sorted { $0.name < $1.name }, questions: [])
        let runner = try TopologyRunner(
            topology: Topology(name: "read", stages: [stage], answers: [], attachments: []), derived: [], log: log,
            database: try StateDatabase(path: nil), sink: DiscardingSink())
        while try runner.runSlice() {}
        let question = FeatureQuestion(service: nil, features: names, entities: [("origin", ["JFK"])])
        var found = 0
        let seconds = try LogBodies.seconds {
            for _ in 0..<reads {
                let answer = try stage.answer(plan, question, at: runner.now)
                found += answer.columns[0].statuses[0] == .present ? 1 : 0
            }
        }
        return (seconds / Double(reads) * 1e6, found)
    }

    /// Backfill of the views over a log: events a second.
    package static func backfill(_ log: any EventLog) throws -> (events: Int64, perSecond: Double) {
        let stage = FeatureStage(views: try catalog().views.values.sorted { $0.name < $1.name }, questions: [])
        let runner = try TopologyRunner(
            topology: Topology(name: "backfill", stages: [stage], answers: [], attachments: []), derived: [], log: log,
            database: try StateDatabase(path: nil), sink: DiscardingSink())
        let seconds = try LogBodies.seconds { while try runner.runSlice() {} }
        return (runner.folded, Double(runner.folded) / seconds)
    }
}
