// Command draw-gif draws the project's animated picture: layers stack up, come
// apart into containers, and settle on three connected nodes. The same source
// always gives the same bytes.
//
//	cd scripts/draw-gif && go run . ../../profiles/content/site.gif
//	go run . -png DIR FILE.gif     also every frame as a PNG
package main

import (
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"log"
	"os"
	"path/filepath"
)

const (
	width, height = 640, 360
	frames        = 110
	delay         = 4 // hundredths of a second
)

func main() {
	pngs := flag.String("png", "", "directory for the frames as PNG")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: draw-gif [-png DIR] FILE.gif")
	}
	pictures := make([]*canvas, frames)
	for i := range pictures {
		pictures[i] = scene(float64(i) / frames)
	}
	palette := choosePalette(pictures)
	animation := &gif.GIF{Config: image.Config{ColorModel: palette, Width: width, Height: height}}
	var before *image.Paletted
	for i, picture := range pictures {
		frame := dither(picture, palette)
		if *pngs != "" {
			writePNG(filepath.Join(*pngs, fmt.Sprintf("frame-%03d.png", i)), frame)
		}
		animation.Image = append(animation.Image, changed(before, frame))
		animation.Delay = append(animation.Delay, delay)
		animation.Disposal = append(animation.Disposal, gif.DisposalNone)
		before = frame
	}
	file, err := os.Create(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	if err := gif.EncodeAll(file, animation); err != nil {
		log.Fatal(err)
	}
	if err := file.Close(); err != nil {
		log.Fatal(err)
	}
}

func writePNG(name string, frame image.Image) {
	file, err := os.Create(name)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if err := png.Encode(file, frame); err != nil {
		log.Fatal(err)
	}
}

// changed returns what differs from the frame before: the rectangle around it,
// with the pixels that stay left transparent.
func changed(before, frame *image.Paletted) *image.Paletted {
	if before == nil {
		return frame
	}
	box := image.Rectangle{}
	for y := 0; y < height; y++ {
		for x := 0; x < width; x++ {
			if before.ColorIndexAt(x, y) != frame.ColorIndexAt(x, y) {
				box = box.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	if box.Empty() {
		box = image.Rect(0, 0, 1, 1)
	}
	part := image.NewPaletted(box, frame.Palette)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			index := frame.ColorIndexAt(x, y)
			if before.ColorIndexAt(x, y) == index {
				index = transparent
			}
			part.SetColorIndex(x, y, index)
		}
	}
	return part
}

const transparent = 0 // index in the palette

func toColor(c rgb) color.RGBA {
	return color.RGBA{byte8(c.r), byte8(c.g), byte8(c.b), 255}
}

func byte8(v float64) uint8 {
	return uint8(max(0, min(1, v))*255 + 0.5)
}
