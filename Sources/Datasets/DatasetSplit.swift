import Base

/// How rows are divided: by a hash of their id, by their time, or by a hash of a column, so that a group stays together.
/// The same row comes into the same part whatever other rows there are.
package enum DatasetSplit: Sendable, Equatable {
    /// Shares in order; `group` is the column that is hashed, nil the row's id.
    case hashed(group: String?, shares: [Double])
    /// Moments from which the next part begins, in milliseconds, ascending.
    case time([Int64])

    /// Column that tells the part.
    package static let column = "split"
    private static let names = ["train", "validation", "test"]

    /// `random:0.8,0.1,0.1`, `group:COLUMN:0.9,0.1`, `time:2013-10-01T00:00:00Z,2013-11-01T00:00:00Z`. Two parts are train
    /// and test, three are train, validation and test.
    package init(_ text: String) throws(DatasetsError) {
        func refuse(_ why: String) -> DatasetsError {
            DatasetsError(
                "bad-split",
                "'\(text)' is no split (\(why)); write random:0.8,0.1,0.1, group:COLUMN:0.8,0.2 or time:2013-10-01T00:00:00Z"
            )
        }
        guard let colon = text.firstIndex(of: ":") else { throw refuse("a kind and a colon are missing") }
        var rest = text[text.index(after: colon)...]
        switch text[..<colon] {
        case "time":
            var moments: [Int64] = []
            for part in rest.split(separator: ",", omittingEmptySubsequences: false) {
                guard let moment = Instant(String(part)) else { throw refuse("'\(part)' is no RFC 3339 time") }
                moments.append(moment.milliseconds)
            }
            guard moments == moments.sorted(), (1...2).contains(moments.count) else {
                throw refuse("it takes one or two times, the earlier first")
            }
            self = .time(moments)
        case "random", "group":
            var group: String?
            if text.hasPrefix("group") {
                guard let next = rest.lastIndex(of: ":") else { throw refuse("the column is missing") }
                group = String(rest[..<next])
                rest = rest[rest.index(after: next)...]
            }
            let shares = rest.split(separator: ",", omittingEmptySubsequences: false).map { Double($0) ?? .nan }
            guard (2...3).contains(shares.count), shares.allSatisfy({ $0 > 0 && $0 < 1 }),
                abs(shares.reduce(0, +) - 1) < 1e-9
            else { throw refuse("two or three shares above 0 that make 1") }
            self = .hashed(group: group, shares: shares)
        default: throw refuse("the kinds are random, group and time")
        }
    }

    private func names(_ count: Int) -> [String] { count == 2 ? ["train", "test"] : DatasetSplit.names }

    /// A number from 0 up to 1 that a text always has; another for every seed.
    package static func place(of text: String, seed: UInt64) -> Double {
        var text = text
        let hash = text.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: seed) }
        return Double(hash >> 11) / 0x1p53
    }

    /// The part of every row.
    package func parts(
        _ table: DatasetTable, id: String, time: String, seed: UInt64
    ) throws(DatasetsError) -> DatasetColumn {
        var parts: [String] = []
        parts.reserveCapacity(table.count)
        switch self {
        case .time(let moments):
            guard case .moments(let times)? = table[time]?.values else {
                throw DatasetsError("bad-split", "there is no column of times '\(time)'")
            }
            let names = names(moments.count + 1)
            for row in 0..<table.count {
                parts.append(names[moments.lastIndex { $0 <= times[row] }.map { $0 + 1 } ?? 0])
            }
        case .hashed(let group, let shares):
            guard let column = table[group ?? id] else {
                let known = table.columns.map(\.name).joined(separator: ", ")
                throw DatasetsError("bad-split", "there is no column '\(group ?? id)' to split by; there are \(known)")
            }
            let names = names(shares.count)
            for row in 0..<table.count {
                let place = DatasetSplit.place(of: column.label(row) ?? "", seed: seed)
                var (part, sum) = (0, shares[0])
                while place >= sum, part + 1 < shares.count {
                    part += 1
                    sum += shares[part]
                }
                parts.append(names[part])
            }
        }
        return DatasetColumn(name: DatasetSplit.column, values: .texts(parts))
    }
}

/// How often each value of a label stands in each part.
package enum ClassBalance {
    /// Columns with more values are no classes.
    private static let classes = 50
    /// A class with a smaller share of a part is named.
    private static let rare = 0.01

    /// `{part: {value: rows}}`, and what is out of balance; nil for a column that is no class.
    package static func check(_ label: DatasetColumn, parts: DatasetColumn?) -> (counts: JSON, notices: [String])? {
        guard label.kind == .text || label.kind == .flag else { return nil }
        var counts: [String: [String: Int64]] = [:]
        var values: Set<String> = []
        for row in 0..<label.count {
            guard let value = label.label(row) else { continue }
            values.insert(value)
            guard values.count <= classes else { return nil }
            counts[parts?.label(row) ?? "all", default: [:]][value, default: 0] += 1
        }
        var notices: [String] = []
        for part in counts.keys.sorted() {
            let mine = counts[part] ?? [:]
            let total = mine.values.reduce(0, +)
            for value in values.sorted() {
                let count = mine[value] ?? 0
                guard Double(count) < rare * Double(total) else { continue }
                notices.append("'\(label.name)' is '\(value)' in \(count) of \(total) rows of '\(part)'")
            }
        }
        return (.object(counts.mapValues { .object($0.mapValues { .int($0) }) }), notices)
    }
}
