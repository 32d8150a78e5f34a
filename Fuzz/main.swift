import EventLog

/// libFuzzer's own driver, from the toolchain's runtime.
@_silgen_name("LLVMFuzzerRunDriver")
func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// The first byte chooses the decoder and whether checksums are made good, the rest is its input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 1 else { return 0 }
    let choice = start[0]
    let decoder = FileDecoder.allCases[Int(choice & 0x7F) % FileDecoder.allCases.count]
    let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    _ = decoder.accepts(choice & 0x80 == 0 ? bytes : decoder.resealed(bytes))
    return 0
}

var count = CommandLine.argc
var arguments = CommandLine.unsafeArgv
let code = runDriver(&count, &arguments, fuzz)
print("libFuzzer ended with \(code)")
