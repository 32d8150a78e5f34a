/// The least, or the most, of values that come and go like a queue's: those that may yet be it, each beyond all that came
/// after it, so the first one is the answer. Flat cost on average.
package struct ExtremeQueue: Sendable {
    private let keepsLeast: Bool
    private var list: [(entry: Int, value: Double)] = []
    private var start = 0

    package init(keepsLeast: Bool) { self.keepsLeast = keepsLeast }

    package var first: Double? { start < list.count ? list[start].value : nil }

    /// - Parameter entry: the value's number; each is higher than the one before.
    package mutating func add(_ value: Double, _ entry: Int) {
        while start < list.count, keepsLeast ? list[list.count - 1].value >= value : list[list.count - 1].value <= value
        {
            list.removeLast()
        }
        list.append((entry, value))
    }

    /// Takes the oldest value away, by its number.
    package mutating func remove(_ entry: Int) {
        guard start < list.count, list[start].entry == entry else { return }
        start += 1
        if start > 32, start * 2 > list.count {
            list.removeFirst(start)
            start = 0
        }
    }
}
