import Base
import Datasets
import Foundation
import Simulation
import Testing

@Suite struct DatasetTableTests {
    /// Every kind of column, with and without missing values, and texts that must be quoted.
    static func table(_ rows: Int, _ seed: UInt64) -> DatasetTable {
        var random = SeededRandom(seed: seed)
        func missing() -> [Bool] { (0..<rows).map { _ in Int.random(in: 0...4, using: &random) == 0 } }
        func cleared<T>(_ values: [T], _ missing: [Bool], _ empty: T) -> [T] {
            zip(values, missing).map { $1 ? empty : $0 }
        }
        let words = ["", "plain", "a,b", "say \"hi\"", "two\nlines", "ümläut 🦆", "null"]
        let doubles = (0..<rows).map { _ in
            [0.1, -0.0, 1e300, Double.leastNonzeroMagnitude, 3, Double.random(in: -1...1, using: &random)]
                .randomElement(using: &random) ?? 0
        }
        let integers = (0..<rows).map { _ in
            [Int64.min, .max, 0, -7, 1 << 53].randomElement(using: &random) ?? 0
        }
        let texts = (0..<rows).map { _ in words.randomElement(using: &random) ?? "" }
        let flags = (0..<rows).map { _ in Bool.random(using: &random) }
        let moments = (0..<rows).map { _ in Int64.random(in: -1_000_000_000_000...4_000_000_000_000, using: &random) }
        let gaps = (0..<5).map { _ in missing() }
        return DatasetTable(columns: [
            DatasetColumn(name: "id", values: .texts((0..<rows).map { "row \($0)" })),
            DatasetColumn(name: "double", values: .doubles(cleared(doubles, gaps[0], 0)), missing: gaps[0]),
            DatasetColumn(name: "whole", values: .doubles(doubles)),
            DatasetColumn(name: "integer", values: .integers(cleared(integers, gaps[1], 0)), missing: gaps[1]),
            DatasetColumn(name: "text", values: .texts(cleared(texts, gaps[2], "")), missing: gaps[2]),
            DatasetColumn(name: "flag", values: .flags(cleared(flags, gaps[3], false)), missing: gaps[3]),
            DatasetColumn(name: "moment", values: .moments(cleared(moments, gaps[4], 0)), missing: gaps[4]),
        ])
    }

    @Test(arguments: [0, 1, 7, 8, 9, 3000]) func rowsComeBack(rows: Int) throws {
        let table = Self.table(rows, 5)
        let store = try ChunkStore(SimulatedVolume(seed: 1))
        let recipe = try store.keep(table)
        let kinds = table.columns.map { ($0.name, $0.kind) }
        var decoder = DatasetRows.Decoder(schema: kinds)
        try store.read(recipe) { try decoder.take($0) }
        #expect(try decoder.table() == table)
        // In pieces of any length.
        var pieces = DatasetRows.Decoder(schema: kinds)
        let bytes = DatasetRows.encode(table)
        for from in stride(from: 0, to: bytes.count, by: 11) {
            try pieces.take(Array(bytes[from..<min(from + 11, bytes.count)]))
        }
        #expect(try pieces.table() == table)
        guard rows > 0 else { return }
        var cut = DatasetRows.Decoder(schema: kinds)
        try cut.take(Array(bytes.dropLast()))
        #expect(errorCode { _ = try cut.table() } == "bad-rows")
    }

    /// A percent of changed rows, in one run, costs little; the rest is there already.
    @Test func aNewVersionStoresWhatChanged() throws {
        let table = Self.table(60_000, 6)
        let store = try ChunkStore(SimulatedVolume(seed: 1))
        _ = try store.keep(table)
        let first = store.statistics.written
        guard case .doubles(var values) = table.columns[2].values else { return }
        for row in 30_000..<30_600 { values[row] = Double(row) + 0.25 }
        var changed = table
        changed.columns[2] = DatasetColumn(name: "whole", values: .doubles(values))
        _ = try store.keep(changed)
        let share = Double(store.statistics.written - first) / Double(first)
        #expect(share < 0.05, "\(share)")
        let difference = DatasetDifference.json(table, changed, id: "id")
        #expect(difference["rows"]?["changed"]?["count"]?.int == 600, "\(difference)")
        #expect(difference["statistics"]?.array?.compactMap { $0["name"]?.string } == ["whole"])
        let shorter = changed.rows(Array(10..<59_000))
        let rows = DatasetDifference.json(table, shorter, id: "id")["rows"]
        #expect(rows?["removed"]?["count"] == 1010 && rows?["added"]?["count"] == 0)
    }

    @Test func splitsKeepTheirRows() throws {
        let table = Self.table(5000, 7)
        let split = try DatasetSplit("random:0.7,0.2,0.1")
        let parts = try split.parts(table, id: "id", time: "moment", seed: 3)
        let part = try split.parts(
            table.rows(Array(stride(from: 0, to: 5000, by: 3))), id: "id", time: "moment", seed: 3)
        for (row, original) in stride(from: 0, to: 5000, by: 3).enumerated() {
            #expect(part.label(row) == parts.label(original))
        }
        var counts: [String: Int] = [:]
        for row in 0..<5000 { counts[parts.label(row) ?? "", default: 0] += 1 }
        #expect((3350...3650).contains(counts["train"] ?? 0) && (400...600).contains(counts["test"] ?? 0), "\(counts)")
        let groups = try DatasetSplit("group:text:0.5,0.5").parts(table, id: "id", time: "moment", seed: 0)
        let byText = Dictionary(grouping: 0..<5000) { table["text"]?.label($0) ?? "" }
        for (text, rows) in byText { #expect(Set(rows.map { groups.label($0) }).count == 1, "\(text)") }
        let times = DatasetTable(columns: [DatasetColumn(name: "t", values: .moments([1, 5, 9, 10]))])
        let at = "1970-01-01T00:00:00.00"
        let timed = try DatasetSplit("time:\(at)5Z,\(at)9Z").parts(times, id: "t", time: "t", seed: 0)
        #expect((0..<4).map { timed.label($0) } == ["train", "validation", "test", "test"])
        for bad in [
            "random", "random:1", "random:0.5,0.6", "group:0.5,0.5", "time:yesterday", "odd:1,2",
            "time:\(at)9Z,\(at)5Z",
        ] {
            #expect(errorCode { _ = try DatasetSplit(bad) } == "bad-split", "\(bad)")
        }
        let label = DatasetColumn(name: "y", values: .flags((0..<1000).map { $0 == 0 }))
        let balance = ClassBalance.check(label, parts: nil)
        #expect(balance?.counts["all"]?["false"] == 999 && balance?.notices.count == 1)
    }
}
