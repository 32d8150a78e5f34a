import Base
import Dispatch
import Learning

/// What a column's values look like: sums are exact, so the same rows in any order give the same bits.
package enum ColumnStatistics {
    /// Values of which the shares are told; of columns with more none.
    private static let listed = 20

    /// Of all columns, several at a time.
    package static func json(_ table: DatasetTable) -> JSON {
        let done = Monitor([Int: JSON]())
        DispatchQueue.concurrentPerform(iterations: table.columns.count) { number in
            let found = json(table.columns[number])
            done.withLock { $0[number] = found }
        }
        return .array(done.withLock { found in table.columns.indices.map { found[$0] ?? .null } })
    }

    package static func json(_ column: DatasetColumn) -> JSON {
        var members: [String: JSON] = [
            "name": .string(column.name), "type": .string(column.kind.rawValue),
            "missing": .int(Int64(column.missing.lazy.filter { $0 }.count)),
        ]
        var distinct = DistinctSketch()
        switch column.values {
        case .doubles(let list): numbers(list, column, &members, &distinct)
        case .integers(let list): numbers(list.map { Double($0) }, column, &members, &distinct)
        case .moments(let list):
            let present = list.indices.lazy.filter { !column.isMissing($0) }.map { list[$0] }
            members["min"] = present.min().map { .string(Instant(milliseconds: $0).description) } ?? .null
            members["max"] = present.max().map { .string(Instant(milliseconds: $0).description) } ?? .null
            for value in present { distinct.add(Double(value)) }
        case .texts, .flags:
            var counts: [String: Int64] = [:]
            for row in 0..<column.count {
                guard let label = column.label(row) else { continue }
                distinct.add(label)
                if counts[label] != nil || counts.count <= listed { counts[label, default: 0] += 1 }
            }
            if counts.count <= listed { members["values"] = .object(counts.mapValues { .int($0) }) }
        }
        members["distinct"] = .double(distinct.value.rounded())
        return .object(members)
    }

    private static func numbers(
        _ list: [Double], _ column: DatasetColumn, _ members: inout [String: JSON], _ distinct: inout DistinctSketch
    ) {
        var moments = Moments()
        var histogram = LogHistogram()
        var (least, most) = (Double.infinity, -Double.infinity)
        for row in list.indices where !column.isMissing(row) && list[row].isFinite {
            moments.add(list[row])
            histogram.add(list[row])
            distinct.add(list[row])
            least = min(least, list[row])
            most = max(most, list[row])
        }
        guard moments.count > 0 else { return }
        members["min"] = .double(least)
        members["max"] = .double(most)
        members["mean"] = moments.mean.map { .double($0) } ?? .null
        members["stddev"] = moments.variance(sample: true).map { .double($0.squareRoot()) } ?? .null
        for (name, share) in [("p05", 0.05), ("p50", 0.5), ("p95", 0.95)] {
            // Within 0.4 %, and never beyond what there is.
            members[name] = histogram.quantile(share).map { .double(min(most, max(least, $0))) } ?? .null
        }
    }
}
