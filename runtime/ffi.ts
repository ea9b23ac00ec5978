/**
 * The only file that knows a foreign function interface. It turns a shared library into plain functions, by ffi-napi's
 * preallocated path when that package loads, else by koffi; BITNET_FFI=ffi-napi|koffi forces one. The C interface is coarse
 * (one call a token or prompt) and uses only int32, double, strings and buffers, so both give the same. They would take any
 * value, and each makes something else of what does not fit, so arguments are checked here.
 *
 * ffi-napi: an ordinary `lib.fn()` call takes 20-29 us and leaks; here the call interface, function pointer and argument
 * buffers are made once and `ffi_call` is called directly (0.4-0.8 us, no leak). That path is internal: its version is pinned.
 * In a worker thread it is not used: the process would end with a segmentation fault when the worker ends.
 */
import { createRequire } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import abi from '../schemas/abi.json' with { type: 'json' };
import { LibraryError, UsageError } from '../schemas/error.ts';
import { show } from '../schemas/options.ts';

type ArgumentType = 'int32' | 'double' | 'string' | 'int32s' | 'ids' | 'floats';
/** What JavaScript passes for int32 and double, string, int32s and ids, floats (null: none wanted). */
export type Argument = number | string | Int32Array | Float32Array | null;
/** A C function; strings are copied. */
export type NativeFunction = (...args: Argument[]) => number | string;

/** A loaded library's functions by C name, and the interface that called them. */
export interface Native {
  readonly interface: 'ffi-napi' | 'koffi';
  readonly functions: Readonly<Record<string, NativeFunction>>;
}

interface Signature {
  readonly name: string;
  readonly result: 'int32' | 'string';
  readonly arguments: readonly ArgumentType[];
}

const signatures: readonly Signature[] = abi.functions.map((f) => ({
  name: f.name,
  result: f.result as Signature['result'],
  arguments: f.arguments.map((a) => a.type as ArgumentType),
}));

/** What a value of each type must be. */
const rules: Readonly<Record<ArgumentType, readonly [is: (value: unknown) => boolean, must: string]>> = {
  int32: [(v) => Number.isInteger(v) && v === ((v as number) | 0), 'a whole number from -2^31 to 2^31 - 1'],
  double: [(v) => typeof v === 'number' && !Number.isNaN(v), 'a number'],
  string: [(v) => typeof v === 'string' && !v.includes('\0'), 'text without a zero byte'],
  int32s: [(v) => v instanceof Int32Array, 'an Int32Array'],
  ids: [(v) => v instanceof Int32Array, 'an Int32Array'],
  floats: [(v) => v === null || v instanceof Float32Array, 'a Float32Array or null'],
};

/** A function that takes only what the interface says. */
function checked(
  { name, arguments: parameters }: (typeof abi.functions)[number],
  call: NativeFunction,
): NativeFunction {
  return (...values) => {
    for (const [at, { name: parameter, type }] of parameters.entries()) {
      const [is, must] = rules[type as ArgumentType];
      if (!is(values[at])) throw new LibraryError(`${name}: ${parameter} = ${show(values[at])}; it must be ${must}`);
    }
    return call(...values);
  };
}

const require = createRequire(import.meta.url);

function loadKoffi(file: string): Native {
  const koffi = require('koffi');
  const library = koffi.load(file);
  const types: Record<ArgumentType, string> = {
    int32: 'int32',
    double: 'double',
    string: 'str',
    int32s: 'void *',
    ids: 'void *',
    floats: 'void *',
  };
  const functions = signatures.map((s) => [
    s.name,
    library.func(
      s.name,
      types[s.result],
      s.arguments.map((a) => types[a]),
    ),
  ]);
  return { interface: 'koffi', functions: Object.fromEntries(functions) };
}

function loadFfiNapi(file: string): Native {
  const ffi = require('ffi-napi');
  const bindings = require('ffi-napi/lib/bindings');
  const ref = require('@2060.io/ref-napi');
  const library = ffi.DynamicLibrary(file, ffi.RTLD_NOW);
  const pointer = ref.refType(ref.types.void);
  const types: Record<ArgumentType, unknown> = {
    int32: ref.types.int32,
    double: ref.types.double,
    string: pointer,
    int32s: pointer,
    ids: pointer,
    floats: pointer,
  };
  // Byte views of the caller's arrays, so that a token loop makes none.
  const views = new WeakMap<object, Buffer>();
  const viewOf = (array: Int32Array | Float32Array): Buffer => {
    let view = views.get(array);
    if (!view) {
      view = Buffer.from(array.buffer, array.byteOffset, array.byteLength);
      views.set(array, view);
    }
    return view;
  };

  const bind = ({ name, result, arguments: args }: Signature): NativeFunction => {
    const cif = ffi.CIF(
      types[result],
      args.map((a) => types[a]),
    );
    const target: Buffer = library.get(name);
    const slots = args.map(() => Buffer.alloc(8));
    const list = Buffer.alloc(8 * Math.max(1, args.length));
    slots.forEach((slot, i) => {
      ref.writePointer(list, 8 * i, slot);
    });
    const out = Buffer.alloc(8);
    return (...values) => {
      const alive: Buffer[] = [];
      args.forEach((type, i) => {
        const slot = slots[i]!;
        const value = values[i];
        if (type === 'int32') slot.writeInt32LE(value as number);
        else if (type === 'double') slot.writeDoubleLE(value as number);
        else if (value === null) slot.fill(0);
        else {
          const bytes = type === 'string' ? Buffer.from(`${value}\0`) : viewOf(value as Int32Array | Float32Array);
          alive.push(bytes);
          ref._writePointer(slot, 0, bytes);
        }
      });
      bindings.ffi_call(cif, target, out, list);
      if (result === 'int32') return out.readInt32LE();
      return ref.readCString(ref.readPointer(out, 0, 0), 0);
    };
  };
  return { interface: 'ffi-napi', functions: Object.fromEntries(signatures.map((s) => [s.name, bind(s)])) };
}

const loaders = { 'ffi-napi': loadFfiNapi, koffi: loadKoffi } as const;

/** Is this interface installed and does it load here? */
export function isAvailable(name: keyof typeof loaders): boolean {
  try {
    require(name);
    return true;
  } catch {
    return false;
  }
}

/** Loads a shared library. @throws LibraryError when it, or the interface asked for, cannot be loaded */
export function loadNative(file: string): Native {
  const asked = process.env.BITNET_FFI;
  if (asked && !Object.hasOwn(loaders, asked))
    throw new UsageError(`BITNET_FFI=${asked} is unknown; use ffi-napi or koffi`);
  if (asked === 'ffi-napi' && !isMainThread)
    throw new UsageError(
      `BITNET_FFI=ffi-napi is not possible in a worker thread, whose end would end the process; use koffi, or leave it out`,
    );
  const name = (asked as keyof typeof loaders) || (isMainThread && isAvailable('ffi-napi') ? 'ffi-napi' : 'koffi');
  if (!isAvailable(name))
    throw new LibraryError(
      `the package '${name}' does not load; run npm install again, or set BITNET_FFI to the other one`,
    );
  try {
    const native = loaders[name](file);
    const functions = abi.functions.map((f) => [f.name, checked(f, native.functions[f.name]!)]);
    return { ...native, functions: Object.fromEntries(functions) };
  } catch (error) {
    // The system's own words, without what either interface puts before them.
    const why = (error as Error).message.replace(/^[\w ]+: /, '').replace(`${file}: `, '');
    throw new LibraryError(`cannot load the library '${file}': ${why}`, { cause: error });
  }
}
