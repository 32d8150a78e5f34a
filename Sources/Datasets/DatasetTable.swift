import Base

/// One column of a dataset: values of one type, some of which may be missing.
package struct DatasetColumn: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable {
        case double, integer, text, flag
        /// Milliseconds since 1970 in UTC.
        case moment
    }

    package enum Values: Sendable, Equatable {
        case doubles([Double])
        case integers([Int64])
        case texts([String])
        case flags([Bool])
        case moments([Int64])
    }

    package let name: String
    package var values: Values
    /// By row; a missing value stands as 0, an empty text or false. Empty when none is missing.
    package var missing: [Bool]

    package init(name: String, values: Values, missing: [Bool] = []) {
        self.name = name
        self.values = values
        self.missing = missing.contains(true) ? missing : []
    }

    package init(name: String, kind: Kind) {
        self.name = name
        missing = []
        values =
            switch kind {
            case .double: .doubles([])
            case .integer: .integers([])
            case .text: .texts([])
            case .flag: .flags([])
            case .moment: .moments([])
            }
    }

    package var kind: Kind {
        switch values {
        case .doubles: .double
        case .integers: .integer
        case .texts: .text
        case .flags: .flag
        case .moments: .moment
        }
    }

    package var count: Int {
        switch values {
        case .doubles(let list): list.count
        case .integers(let list), .moments(let list): list.count
        case .texts(let list): list.count
        case .flags(let list): list.count
        }
    }

    package func isMissing(_ row: Int) -> Bool { !missing.isEmpty && missing[row] }

    /// Rows by their numbers, in that order.
    package func rows(_ numbers: [Int]) -> DatasetColumn {
        let values: Values =
            switch values {
            case .doubles(let list): .doubles(numbers.map { list[$0] })
            case .integers(let list): .integers(numbers.map { list[$0] })
            case .texts(let list): .texts(numbers.map { list[$0] })
            case .flags(let list): .flags(numbers.map { list[$0] })
            case .moments(let list): .moments(numbers.map { list[$0] })
            }
        return DatasetColumn(name: name, values: values, missing: missing.isEmpty ? [] : numbers.map { missing[$0] })
    }

    /// A value as text, for keys and categories; nil when it is missing.
    package func label(_ row: Int) -> String? {
        guard !isMissing(row) else { return nil }
        switch values {
        case .doubles(let list): return CELValue.double(list[row]).label
        case .integers(let list): return String(list[row])
        case .texts(let list): return list[row]
        case .flags(let list): return list[row] ? "true" : "false"
        case .moments(let list): return Instant(milliseconds: list[row]).description
        }
    }
}

/// Rows and columns.
package struct DatasetTable: Sendable, Equatable {
    package var columns: [DatasetColumn]
    package let count: Int

    /// - Parameter columns: all as long as the first.
    package init(columns: [DatasetColumn]) {
        self.columns = columns
        count = columns.first?.count ?? 0
        precondition(columns.allSatisfy { $0.count == count }, "columns of a table are of one length")
    }

    package subscript(_ name: String) -> DatasetColumn? { columns.first { $0.name == name } }

    package func rows(_ numbers: [Int]) -> DatasetTable { DatasetTable(columns: columns.map { $0.rows(numbers) }) }

    package var schema: JSON {
        .array(columns.map { .object(["name": .string($0.name), "type": .string($0.kind.rawValue)]) })
    }

    /// Rows in runs of at most so many, and of at most so many bytes of text where one row has no more.
    func groups(rows: Int, bytes: Int) -> [Range<Int>] {
        var texts: [[String]] = []
        for column in columns { if case .texts(let list) = column.values { texts.append(list) } }
        var groups: [Range<Int>] = []
        var (from, size) = (0, 0)
        for row in 0..<count {
            let more = texts.reduce(0) { $0 + $1[row].utf8.count }
            if row > from, row - from == rows || size + more > bytes {
                groups.append(from..<row)
                (from, size) = (row, 0)
            }
            size += more
        }
        if from < count { groups.append(from..<count) }
        return groups
    }
}
