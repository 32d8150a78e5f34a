import Base
import Foundation

/// SIGINT and SIGTERM ask for a clean stop.
enum Signals {
    nonisolated(unsafe) private static var sources: [any DispatchSourceSignal] = []

    static func install() -> Monitor<Bool> {
        let flag = Monitor(false)
        for number in [SIGINT, SIGTERM] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                let name = number == SIGINT ? "SIGINT" : "SIGTERM"
                FileHandle.standardError.write(Data("\(Instant.wallClock()): \(name), stopping\n".utf8))
                flag.update { $0 = true }
            }
            source.resume()
            sources.append(source)
        }
        return flag
    }
}
