extension RandomAccessCollection {
    /// Index of the first element for which `isBefore` is false, by halving; elements for which it is true stand first.
    @inlinable
    package func sortedIndex(after isBefore: (Element) -> Bool) -> Index {
        var low = startIndex
        var count = self.count
        while count > 0 {
            let half = count / 2
            let middle = index(low, offsetBy: half)
            if isBefore(self[middle]) {
                low = index(after: middle)
                count -= half + 1
            } else {
                count = half
            }
        }
        return low
    }
}
