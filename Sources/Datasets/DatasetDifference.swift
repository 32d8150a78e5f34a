import Base

/// What differs between two versions of a dataset.
package enum DatasetDifference {
    /// Rows that are named in an answer, of each kind.
    private static let named = 10

    /// Rows are the same when their id is; of several with one id the first is compared with the first.
    package static func json(
        _ left: DatasetTable, _ right: DatasetTable, id: String
    ) -> JSON {
        var members: [String: JSON] = ["schema": schema(left, right), "statistics": statistics(left, right)]
        let shared = left.columns.map(\.name).filter { right[$0] != nil }
        let (before, after) = (keys(left, id), keys(right, id))
        var numbers: [ExactText: Int] = [:]
        numbers.reserveCapacity(before.count)
        for (row, key) in before.enumerated() { numbers[ExactText(key)] = row }
        var (added, removed, changed) = (Found(), Found(), Found())
        let pairs = shared.compactMap { name in left[name].flatMap { old in right[name].map { (old, $0) } } }
        var columns = [Int64](repeating: 0, count: pairs.count)
        var seen = [Bool](repeating: false, count: before.count)
        for (row, key) in after.enumerated() {
            guard let old = numbers[ExactText(key)] else {
                added.add(key)
                continue
            }
            seen[old] = true
            var differs = false
            for (place, (before, after)) in pairs.enumerated() where !isSame(before, old, after, row) {
                columns[place] += 1
                differs = true
            }
            if differs { changed.add(key) }
        }
        for (row, key) in before.enumerated() where !seen[row] { removed.add(key) }
        members["values"] = .object(
            Dictionary(
                zip(pairs, columns).filter { $0.1 > 0 }.map { ($0.0.name, JSON.int($1)) }, uniquingKeysWith: { $1 }))
        members["rows"] = .object(["added": added.json, "removed": removed.json, "changed": changed.json])
        return .object(members)
    }

    private struct Found {
        var count: Int64 = 0
        var first: [String] = []

        mutating func add(_ key: String) {
            count += 1
            if first.count < DatasetDifference.named { first.append(key) }
        }

        var json: JSON { .object(["count": .int(count), "first": .array(first.map { .string($0) })]) }
    }

    /// Ids; a repeated one is numbered.
    private static func keys(_ table: DatasetTable, _ id: String) -> [String] {
        let column = table[id]
        var times: [ExactText: Int] = [:]
        return (0..<table.count).map { row in
            let key = column?.label(row) ?? ""
            let exact = ExactText(key)
            let number = times[exact, default: 0]
            times[exact] = number + 1
            return number == 0 ? key : "\(key)#\(number + 1)"
        }
    }

    private static func isSame(_ left: DatasetColumn, _ row: Int, _ right: DatasetColumn, _ other: Int) -> Bool {
        guard left.isMissing(row) == right.isMissing(other) else { return false }
        guard !left.isMissing(row) else { return true }
        switch (left.values, right.values) {
        case (.doubles(let a), .doubles(let b)): return a[row].bitPattern == b[other].bitPattern
        case (.integers(let a), .integers(let b)), (.moments(let a), .moments(let b)): return a[row] == b[other]
        case (.texts(let a), .texts(let b)): return a[row].utf8.elementsEqual(b[other].utf8)
        case (.flags(let a), .flags(let b)): return a[row] == b[other]
        default: return false
        }
    }

    private static func schema(_ left: DatasetTable, _ right: DatasetTable) -> JSON {
        func names(_ columns: [DatasetColumn]) -> JSON { .array(columns.map { .string($0.name) }) }
        let changed = right.columns.filter { column in left[column.name].map { $0.kind != column.kind } ?? false }
        return .object([
            "added": names(right.columns.filter { left[$0.name] == nil }),
            "removed": names(left.columns.filter { right[$0.name] == nil }), "changed": names(changed),
        ])
    }

    /// Columns of which anything is told differently, before and after.
    private static func statistics(_ left: DatasetTable, _ right: DatasetTable) -> JSON {
        var list: [JSON] = []
        for column in right.columns {
            guard let old = left[column.name] else { continue }
            let (before, after) = (ColumnStatistics.json(old), ColumnStatistics.json(column))
            if before != after {
                list.append(.object(["name": .string(column.name), "before": before, "after": after]))
            }
        }
        return .array(list)
    }
}
