#include "chart_picture.h"

#include <fmt/format.h>
#include <librsvg/rsvg.h>

#include <memory>
#include <stdexcept>

namespace tuiqiao::cli {

namespace {

constexpr double kScale = 2;

template <class T, void (*release)(T*)>
struct Release {
  void operator()(T* held) const { release(held); }
};
void release_object(RsvgHandle* handle) { g_object_unref(handle); }

using Handle = std::unique_ptr<RsvgHandle, Release<RsvgHandle, release_object>>;
using Surface = std::unique_ptr<cairo_surface_t, Release<cairo_surface_t, cairo_surface_destroy>>;
using Context = std::unique_ptr<cairo_t, Release<cairo_t, cairo_destroy>>;

cairo_status_t append(void* text, const unsigned char* bytes, unsigned int count) {
  static_cast<std::string*>(text)->append(bytes, bytes + count);
  return CAIRO_STATUS_SUCCESS;
}

[[noreturn]] void fail(GError* error) {
  const std::string message = error != nullptr ? error->message : "of an unknown kind";
  g_clear_error(&error);
  throw std::runtime_error("a chart cannot be drawn: " + message);
}

std::string png_of_svg(const std::string& svg) {
  GError* error = nullptr;
  const Handle handle(rsvg_handle_new_from_data(reinterpret_cast<const guint8*>(svg.data()), svg.size(), &error));
  if (!handle) fail(error);
  double width = 0, height = 0;
  if (rsvg_handle_get_intrinsic_size_in_pixels(handle.get(), &width, &height) == 0) fail(nullptr);
  const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(kScale * width),
                                                   static_cast<int>(kScale * height)));
  const Context context(cairo_create(surface.get()));
  const RsvgRectangle all{0, 0, kScale * width, kScale * height};
  if (rsvg_handle_render_document(handle.get(), context.get(), &all, &error) == 0) fail(error);
  std::string png;
  if (cairo_surface_write_to_png_stream(surface.get(), append, &png) != CAIRO_STATUS_SUCCESS) fail(nullptr);
  return png;
}

}  // namespace

void check_chart_name(const std::string& file) {
  if (!file.empty() && !file.ends_with(".png") && !file.ends_with(".svg"))
    throw std::invalid_argument(fmt::format("{}: charts are written as .png or .svg", file));
}

std::string chart_picture(const std::string& file, const std::vector<Chart>& charts) {
  check_chart_name(file);
  const std::string svg = svg_of(charts);
  return file.ends_with(".png") ? png_of_svg(svg) : svg;
}

}  // namespace tuiqiao::cli
